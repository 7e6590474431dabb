"""A server of channels that clients subscribe to."""
