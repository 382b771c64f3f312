"""The description of a run: what is trained, on what, how, and how it is judged."""
