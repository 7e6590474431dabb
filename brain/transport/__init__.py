"""
How bytes reach a client: frames, backpressure, timeouts, close handshakes.

In: texts and finished frames. Out: messages, given to a session.
A transport knows no wire format and no channel.
"""
