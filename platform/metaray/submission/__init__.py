"""Commands as jobs of a Ray cluster: what is sent, to whom, and what became of it. Needs no Ray here."""
