"""Texts with labels, from the files that people have, as a store of tokens."""
