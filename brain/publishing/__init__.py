"""
Calls with which a Python backend publishes messages.

In: a channel, a type and data. Out: rows of the log, in the caller's transaction.
Clients are reached through the log alone.
"""
