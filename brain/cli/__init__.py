"""What is typed in, what is printed out, and the exit status. Nothing imports this."""
