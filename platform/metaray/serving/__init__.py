"""The way from a stored learner to predictions on a new task. Imports neither Ray nor MLflow."""
