"""
PostgreSQL: connections, migrations, the log and what is read from it, watched tables.

In: a database URL and queries' arguments. Out: batches, snapshots, one clear error per failure.
Nothing here knows clients, formats or transports.
"""
