"""`metaray evaluate`: what a learner is good for."""

from typing import Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import SET_KEYS, AsJson, TrackingUri, Trust, Verbose, Verify

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The learner: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder.",
    ),
]


def evaluate(
    model: Model,
    episodes: Annotated[int, typer.Option(min=2, metavar="N", help="Number of episodes to judge it on.")] = 1000,
    part: Annotated[
        str, typer.Option(metavar="PART", help="Whose classes to judge it on: meta-val or meta-test.")
    ] = "meta-test",
    tracking_uri: TrackingUri = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=f"Change a field of the learner's own experiment, such as source.path. {SET_KEYS}",
        ),
    ] = None,
    trust: Trust = None,
    verify: Verify = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Judge a learner on episodes of its own source, or of another."""
    from rich.console import Console

    from metaray.api.evaluate import evaluate_model
    from metaray.cli import show
    from metaray.displays.run_display import JudgingDisplay

    if trust:
        import_from_here()
    with JudgingDisplay(Console(stderr=True)) as progress:
        judged = evaluate_model(
            model,
            episodes=episodes,
            split=part,
            settings=settings or [],
            tracking=tracking_uri,
            trust=trust or [],
            progress=progress,
            verify=verify,
        )
    show.judged(judged, as_json=as_json)
