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
LinkEncoder = Annotated[
    bool,
    typer.Option(
        "--link-encoder",
        help="Keep the learner's frozen encoder in --storage, under blobs/, once for all registered versions that have "
        "it, instead of in each of them.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read the data whole and check them, even where this machine has done so before."),
]
DataOn = Annotated[
    str,
    typer.Option(
        "--data-on",
        metavar="PLACE",
        help="Where examples are while a worker trains: host, device, or auto: on a GPU where they are rows of a "
        "store, and fit.",
    ),
]
DecimalMark = Annotated[
    Literal[".", ","],
    typer.Option("--decimal", metavar="MARK", help="Decimal mark of the numbers in CSV files: a point or a comma."),
]
FEW_STEPS = "5"  # as training.profiling has it, which takes seconds to import
Profile = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="[STEPS]",
        help="Show where the time of a step goes, by phase and operation: profile so many outer steps after a warm-up, "
        f"{FEW_STEPS} of them where no number follows. A table and a trace for Perfetto are left in the run's folder.",
    ),
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


def with_values(arguments: list[str]) -> list[str]:
    """The arguments, with a number after a --profile that has none: typer has no options whose value may be missing."""
    filled: list[str] = []
    for place, word in enumerate(arguments):
        filled.append(word)
        after = arguments[place + 1] if place + 1 < len(arguments) else ""
        if word == "--profile" and not after.removeprefix("-").isdecimal():
            filled.append(FEW_STEPS)
    return filled


def is_verbose() -> bool:
    """Whether the command was asked to tell all."""
    return logging.getLogger("metaray").isEnabledFor(logging.DEBUG)
