"""Options that several commands share."""

from typing import Annotated

import typer

TrackingUri = Annotated[
    str | None, typer.Option(help="URI of MLflow; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
]
RunStorage = Annotated[str, typer.Option("--storage", help="folder or URI that holds all runs")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]
