"""Options that several commands share."""

import logging
import sys
from typing import Annotated, Literal

import typer

SET_KEYS = "`metaray train RECIPE --keys` lists all keys, with what they mean and their values."

TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI", help="Where MLflow keeps runs; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."
    ),
]
RunStorage = Annotated[
    str, typer.Option("--storage", metavar="FOLDER", help="Folder or URI that holds the folders of all runs.")
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE", help="A package besides metaray whose code the model, run or search may import and run."
    ),
]
Promote = Annotated[
    bool, typer.Option("--promote", help="Make the learner @champion, whatever the comparison on meta-val says.")
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read the data whole and check them, even where this machine has done so before."),
]
DecimalMark = Annotated[
    Literal[".", ","],
    typer.Option("--decimal", metavar="MARK", help="What numbers of CSV files have before tenths: a point or a comma."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Address of a running Ray cluster; by default $RAY_ADDRESS, else a local one is started.",
    ),
]


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
