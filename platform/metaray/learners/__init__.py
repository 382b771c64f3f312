"""Learners: what the registry holds and users adapt, their folders, and inputs as users hold them."""
