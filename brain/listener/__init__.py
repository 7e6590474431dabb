"""A bell in, ordered batches out, without gaps or repeats. Knows nothing of the hub."""
