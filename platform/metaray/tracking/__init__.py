"""What a run leaves behind: metrics, artifacts, provenance and registered models. Importing this imports no MLflow."""
