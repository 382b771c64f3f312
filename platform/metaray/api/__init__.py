"""Whole commands, composed of the stages: train, evaluate, upload, tune."""
