"""Tables that several systems read: their SQL, and how their rows are understood."""
