"""The command line: options in, lines and an exit status out. Nothing imports this."""
