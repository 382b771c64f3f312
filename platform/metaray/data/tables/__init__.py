"""Tables whose rows come in groups, a task each: their file, its import and its description."""
