"""Hyperparameter searches on Ray Tune: inner learning rates first of all."""
