"""The systems that Brain can serve: each a folder with its schema and what it registers."""
