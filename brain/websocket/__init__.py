"""The door: a handshake, then one conversation per client."""
