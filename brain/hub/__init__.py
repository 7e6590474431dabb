"""
Batches in, frames out to every subscriber of a channel.

In: batches and subscriptions. Out: frames, written to transports.
Nothing here awaits, so no client can hold up another.
"""
