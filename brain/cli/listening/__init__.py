"""
`brain listen`: what a client of Brain gets, for a person or another program.

Changes of `brain.client` come in; lines of JSON, readable lines, or a table on a terminal go out.
No text of a row reaches a terminal with a control character in it.
"""
