"""The far end: calls with which a backend changes tasks."""
