"""`metaray report`: what a run, a search or a learner has to say, as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.json_out import print_json
from metaray.cli.options import AsJson, RunStorage, TrackingUri, Trust, Verbose
from metaray.cli.use import MODEL, Device, Part


def report(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Name of a run or a search, as `metaray runs list` prints it, or SEARCH/trial-0000; or a learner: "
            f"{MODEL}",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write; by default report-NAME.html in the working directory."),
    ] = None,
    episodes: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Number of episodes to evaluate on for what the record does not hold; 0 evaluates none.",
        ),
    ] = 100,
    part: Part = "meta-test",
    device: Device = "auto",
    storage: RunStorage = "runs",
    tracking_uri: TrackingUri = None,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Make the report an artifact of the MLflow run, where there is one.")
    ] = True,
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a report of a run, a search or a learner: one HTML file that needs nothing but itself."""
    from metaray.api.report import NotLogged
    from metaray.api.report import report as write_report

    if trust:
        import_from_here()
    try:
        written = write_report(
            target,
            out=out,
            storage=storage,
            episodes=episodes,
            part=part,
            device=device,
            tracking_uri=tracking_uri,
            trust=trust or [],
            log=log,
        )
    except NotLogged as problem:
        print_json(problem.report.tree()) if as_json else print(problem.report)
        raise
    print_json(written.tree()) if as_json else print(written)
