"""What a terminal or a notebook shows of a run, a search or an evaluation while it goes on."""
