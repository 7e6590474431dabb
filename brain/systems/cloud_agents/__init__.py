"""A service of agents that users talk to."""
