"""A dashboard of agents' workflows, made of feeds."""
