"""`metaray evaluate` and `metaray compare`: what learners are good for."""

from typing import Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import SET_KEYS, Address, AsJson, TrackingUri, Trust, Verbose, Verify

MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=f"The learner: {MODEL}")]
Episodes = Annotated[int, typer.Option(min=2, metavar="N", help="Number of episodes to judge on.")]
Part = Annotated[str, typer.Option(metavar="PART", help="Whose classes to judge on: meta-val or meta-test.")]
Ways = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Classes of an episode, where these are to be others.")
]
Shots = Annotated[int | None, typer.Option(min=1, metavar="N", help="Support examples a class, likewise.")]
Queries = Annotated[int | None, typer.Option(min=1, metavar="N", help="Query examples a class, likewise.")]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="What to compute on: auto (a GPU where there is one), cpu or cuda.")
]
JudgingWorkers = Annotated[
    int, typer.Option(min=0, metavar="N", help="Number of Ray workers that share the episodes; 0 judges without Ray.")
]
CpusPerWorker = Annotated[float, typer.Option(min=0.01, metavar="N", help="Number of CPUs that each worker reserves.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"Change a field of the (first) learner's experiment, such as source.path. {SET_KEYS}",
    ),
]


def evaluate(
    model: Model,
    episodes: Episodes = 1000,
    part: Part = "meta-test",
    ways: Ways = None,
    shots: Shots = None,
    queries: Queries = None,
    device: Device = "auto",
    workers: JudgingWorkers = 0,
    cpus_per_worker: CpusPerWorker = 1.0,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    settings: Settings = None,
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
    from metaray.training.placement import Placement, Workers

    number = Workers(workers, workers)
    placement = Placement(number, cpus_per_worker=cpus_per_worker, device=device, address=address, verify=verify)
    if trust:
        import_from_here()
    with JudgingDisplay(Console(stderr=True)) as progress:
        judged = evaluate_model(
            model,
            episodes=episodes,
            split=part,
            settings=settings or [],
            ways=ways,
            shots=shots,
            queries=queries,
            tracking=tracking_uri,
            trust=trust or [],
            placement=placement,
            progress=progress,
        )
    show.judged(judged, as_json=as_json)


def compare(
    first: Annotated[str, typer.Argument(metavar="MODEL", help=f"The first learner: {MODEL}")],
    second: Annotated[str, typer.Argument(metavar="MODEL", help=f"The second learner: {MODEL}")],
    episodes: Episodes = 1000,
    part: Part = "meta-test",
    device: Device = "auto",
    workers: JudgingWorkers = 0,
    cpus_per_worker: CpusPerWorker = 1.0,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    settings: Settings = None,
    trust: Trust = None,
    verify: Verify = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Judge two learners on the same episodes of the first one's source, and say which is better."""
    from rich.console import Console

    from metaray.api.compare import compare_models
    from metaray.cli import show
    from metaray.displays.run_display import JudgingDisplay
    from metaray.training.placement import Placement, Workers

    number = Workers(workers, workers)
    placement = Placement(number, cpus_per_worker=cpus_per_worker, device=device, address=address, verify=verify)
    if trust:
        import_from_here()
    with JudgingDisplay(Console(stderr=True)) as progress:
        compared = compare_models(
            first,
            second,
            episodes=episodes,
            split=part,
            settings=settings or [],
            tracking=tracking_uri,
            trust=trust or [],
            placement=placement,
            progress=progress,
        )
    show.compared(compared, as_json=as_json)
