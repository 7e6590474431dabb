"""
The process that serves: sockets, signals, logging, workers.

In: an ASGI application. Out: an exit status.
Nothing here knows what the application does.
"""
