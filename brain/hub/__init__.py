"""Batches in, frames out to whoever subscribed. Nothing here awaits, so nothing can be held up."""
