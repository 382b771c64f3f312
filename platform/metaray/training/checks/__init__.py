"""What can be checked before anything expensive starts."""
