"""Molecules as an example of features from outside: fingerprints by rdkit, assays as tasks of a table in wide form."""
