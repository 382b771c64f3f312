"""Options that several commands share."""

import logging
import sys
from typing import Annotated

import typer

TrackingUri = Annotated[
    str | None, typer.Option(help="URI of MLflow; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
]
RunStorage = Annotated[str, typer.Option("--storage", help="folder or URI that holds all runs")]
Trust = Annotated[
    list[str] | None,
    typer.Option(help="a package besides metaray whose code a model, run or search may name; may be repeated"),
]
Promote = Annotated[
    bool, typer.Option("--promote", help="Make the learner @champion, whatever the comparison on meta-val says.")
]
Verify = Annotated[
    bool, typer.Option("--verify", help="read the data whole and check them, also where this machine did so before")
]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]


def _tell_all(verbose: bool) -> bool:
    if verbose:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        logger = logging.getLogger("metaray")
        logger.handlers = [one for one in logger.handlers if type(one) is not logging.StreamHandler] + [handler]
        logger.setLevel(logging.DEBUG)
    return verbose


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=_tell_all,
        help="Print the package's log, what Ray says, and whole tracebacks.",
    ),
]


def is_verbose() -> bool:
    """Whether the command was asked to tell all."""
    return logging.getLogger("metaray").isEnabledFor(logging.DEBUG)
