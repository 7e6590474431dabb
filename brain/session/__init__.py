"""
One client: admission, limits, commands, catch-up, its end.

In: an admitted connection and what the client sends. Out: texts for its transport.
A session knows neither tables nor frames, and never waits for its client.
"""
