"""
Who is connected, on this node and on all others.

In: sessions that open, change and end. Out: counts, subscribers of a channel, presence events.
`tracker` is pure; `cluster` is the only module that talks to the database.
"""
