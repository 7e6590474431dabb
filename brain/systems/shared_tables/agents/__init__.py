"""The table `agents`: its SQL, and how its rows are shown."""
