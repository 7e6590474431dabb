"""A control room for agents and their sessions."""
