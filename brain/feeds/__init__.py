"""
Queries; the result of each is sent in full whenever it changes.

In: definitions in the database, batches that may change a result. Out: states, to subscribers.
A feed keeps one state for all of its clients, and queues nothing.
"""
