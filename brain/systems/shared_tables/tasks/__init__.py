"""The table `tasks`: its SQL, and how its rows are shown."""
