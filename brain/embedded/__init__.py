"""
The PostgreSQL that Brain starts when it is given no database.

In: a folder. Out: the URL of a running server that ends with this process.
Nothing here knows the schema.
"""
