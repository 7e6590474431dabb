"""A dashboard of tasks."""
