"""`metaray evaluate` and `metaray compare`: what learners are good for."""

from typing import Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import SET_KEYS, Address, AsJson, TrackingUri, Trust, Verbose, Verify
from metaray.cli.table_out import TableOut, require_place, write_table

MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=f"The learner: {MODEL}")]
Episodes = Annotated[int, typer.Option(min=2, metavar="N", help="Number of episodes to judge on.")]
Part = Annotated[str, typer.Option(metavar="PART", help="Part of the data to judge on: meta-val or meta-test.")]
Ways = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Number of classes in an episode, or a range such as 5..20; by default the learner's."
    ),
]
Shots = Annotated[
    str | None, typer.Option(metavar="N", help="Number of support examples of a class (rows of a table), or a range.")
]
Queries = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Number of query examples of a class (rows), a range, or 'rest' for all that are left."
    ),
]
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
    table: TableOut = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Judge a learner on episodes of its own source, or of another."""
    from metaray.api.evaluate import evaluate as judge
    from metaray.cli import show

    require_place(table)
    if trust:
        import_from_here()
    judged = judge(
        model,
        episodes=episodes,
        part=part,
        settings=settings or [],
        ways=ways,
        shots=shots,
        queries=queries,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        device=device,
        address=address,
        tracking_uri=tracking_uri,
        trust=trust or [],
        verify=verify,
    )
    if table is not None:
        write_table(judged.judged, table)
    show.result(judged, as_json=as_json)


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
    from metaray.api.compare import compare as compare_learners
    from metaray.cli import show

    if trust:
        import_from_here()
    compared = compare_learners(
        first,
        second,
        episodes=episodes,
        part=part,
        settings=settings or [],
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        device=device,
        address=address,
        tracking_uri=tracking_uri,
        trust=trust or [],
        verify=verify,
    )
    show.result(compared, as_json=as_json)
