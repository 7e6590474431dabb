"""What travels: events, the messages made of them, the wire formats. No database, no socket."""
