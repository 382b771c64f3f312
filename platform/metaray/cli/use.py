"""`metaray evaluate` and `metaray compare`: what learners are good for."""

from pathlib import Path
from typing import Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import SET_KEYS, Address, AsJson, TrackingUri, Trust, Verbose, Verify
from metaray.cli.table_out import TableOut, require_place, write_table
from metaray.errors import InputError

MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=f"The learner: {MODEL}")]
Episodes = Annotated[int, typer.Option(min=2, metavar="N", help="Number of episodes to evaluate on.")]
Part = Annotated[str, typer.Option(metavar="PART", help="Meta-split to evaluate on: meta-val or meta-test.")]
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
    str, typer.Option(metavar="DEVICE", help="Device to compute on: auto (a GPU where there is one), cpu or cuda.")
]
JudgingWorkers = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Number of Ray workers that share the episodes; 0 evaluates without Ray."),
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


Stream = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Evaluate on a stream instead: classes arrive one after another, and the learner's task is extended by "
        "them; accuracy on all that have arrived after so many classes, as in 10,50,100. MLflow gets the curve.",
    ),
]
Orders = Annotated[int, typer.Option(min=1, metavar="N", help="Number of orders of a stream's classes.")]
GrownHow = Annotated[
    str,
    typer.Option(
        "--how", metavar="HOW", help="How tasks grow on a stream: together or continue, as `metaray extend` has it."
    ),
]
StreamPicture = Annotated[
    Path | None, typer.Option("--picture", metavar="FILE", help="PNG file to draw the curve of a stream to.")
]
StreamTracker = Annotated[
    str, typer.Option("--tracker", metavar="NAME", help="Tracker of a stream: mlflow, or none to write it nowhere.")
]


def evaluate(
    context: typer.Context,
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
    stream: Stream = None,
    orders: Orders = 5,
    how: GrownHow = "together",
    picture: StreamPicture = None,
    tracker: StreamTracker = "mlflow",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Evaluate a learner on episodes of its own source, or of another; or on a stream of classes."""
    from metaray.api.evaluate import evaluate as judge
    from metaray.cli import show

    _refuse_others(context, OF_EPISODES if stream is not None else OF_STREAMS, stream is not None)
    require_place(table)
    if trust:
        import_from_here()
    if stream is not None:
        from metaray.cli.stream import judge_stream

        judge_stream(
            model,
            stream,
            table=table,
            picture=picture,
            as_json=as_json,
            orders=orders,
            how=how,
            part=part,
            settings=settings or [],
            shots=shots,
            queries=queries or "rest",
            tracker=tracker,
            tracking_uri=tracking_uri,
            trust=trust or [],
            verify=verify,
        )
        return
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


OF_EPISODES = ("episodes", "ways", "device", "workers", "cpus_per_worker", "address")
OF_STREAMS = ("orders", "how", "picture", "tracker")


def _refuse_others(context: typer.Context, names: tuple[str, ...], is_stream: bool) -> None:
    """Refuse options that would change nothing.

    Raises:
        InputError: Naming the first.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            told = "is of episodes, not of a stream" if is_stream else "is of a stream: give --stream, too"
            raise InputError(f"{option} {told}")


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
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a report of the comparison, as one HTML file.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Evaluate two learners on the same episodes, of the first one's source, and say which is better."""
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
        out=out,
    )
    show.result(compared, as_json=as_json)
