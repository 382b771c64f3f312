"""Pictures: learning curves, searches, fits of functions, tasks and their predictions."""
