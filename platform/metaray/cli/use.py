"""`metaray evaluate` and `metaray adapt`: what a learner is good for."""

from pathlib import Path
from typing import Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import SET_KEYS, AsJson, TrackingUri, Trust, Verbose, Verify
from metaray.errors import InputError

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
    from metaray.cli.display import JudgingDisplay

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


def adapt(
    model: Model,
    support: Annotated[
        Path,
        typer.Option(
            metavar="PATH", help="Known examples: a folder with a folder of images for each class, or a CSV file."
        ),
    ],
    query: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="What to predict for: an image, a folder of images, or a folder with a folder for each class, to be "
            "told how many are right; or a CSV file.",
        ),
    ],
    x: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Columns of the CSV files that are inputs, as in age,weight.")
    ] = None,
    y: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Columns of the CSV files that are targets, as in dose.")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Number of inner steps, instead of the learner's own.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG file to draw the task and the predictions to.")
    ] = None,
    tracking_uri: TrackingUri = None,
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Adapt a learner to a new task, and label other images; in regression, predict y from x."""
    import metaray
    from metaray.cli import show
    from metaray.data.store_file import check_writable
    from metaray.serving.folders import read_query, read_support
    from metaray.serving.tables import is_table, read_points, require_classes, split_names

    if trust:
        import_from_here()
    if picture is not None:
        check_writable(picture)
    if is_table(support):
        learner = metaray.load(model, tracking_uri=tracking_uri, trust=trust or [])
        names = {"x": split_names(x), "y": split_names(y)}
        known = read_points(support, learner, targets=True, **names)
        wanted = read_points(query, learner, targets=False, **names)
        show.values(learner, known, wanted, inner_steps=inner_steps, picture=picture, as_json=as_json)
        return
    if x or y:
        raise InputError("--x and --y name columns of CSV files; --support is none")
    labelled, asked = read_support(support), read_query(query)
    learner = metaray.load(model, tracking_uri=tracking_uri, trust=trust or [])
    require_classes(learner)
    task = show.doubting(learner.adapt(labelled.paths, labelled.labels, inner_steps=inner_steps))
    show.predictions(task, labelled, asked, picture=picture, as_json=as_json)
