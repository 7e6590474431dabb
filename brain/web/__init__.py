"""Everything asked over plain HTTP: the status, the tasks, the page."""
