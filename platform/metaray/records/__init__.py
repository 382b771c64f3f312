"""What a run leaves: its folder, journal, checkpoints, events, results, and where they come from."""
