"""
Watched tables in, the source text of types for their rows out.

`catalog` reads, `typescript` and `python` write; no row of a table is read here.
"""
