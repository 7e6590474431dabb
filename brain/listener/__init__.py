"""
Notifications in, ordered batches out, without gaps or repeats.

In: NOTIFY and the log. Out: batches, for ever, across lost connections.
Nothing here knows the hub or a client.
"""
