"""
What travels: events, the messages rendered from them, the commands parsed from client frames.

In: rows of the log and texts from clients. Out: texts for clients and commands for sessions.
No I/O: nothing here knows a database, a socket or an event loop.
"""
