"""Where changes are born and kept: connections, migrations, the log, the embedded server."""
