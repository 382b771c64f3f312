"""What tasks ask for."""
