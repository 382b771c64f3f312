"""The commands, and how errors become exit codes."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from metaray.cli import data, registry
from metaray.errors import InputError, RunFailed, RunStopped

STARTED_S = time.time()

app = typer.Typer(
    name="metaray",
    help="Meta-train few-shot learners on a Ray cluster, register them, adapt them to new tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(registry.app, name="registry")

Recipe = Annotated[str, typer.Argument(help="path/to/file.py:function, or an experiment's JSON file")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value, may be repeated")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow; default $MLFLOW_TRACKING_URI, else ./mlflow.db")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]
Trust = Annotated[list[str] | None, typer.Option(help="a package besides metaray whose code the model may name")]


@app.command()
def train(
    recipe: Recipe,
    workers: Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process without Ray")] = 0,
    samplers: Annotated[int, typer.Option(min=1, help="sampler actors")] = 2,
    cpus_per_worker: Annotated[float, typer.Option(min=0.01, help="CPUs that each worker reserves")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    address: Annotated[str | None, typer.Option(help="of a running Ray cluster")] = None,
    run: Annotated[str | None, typer.Option(help="name of the run; an unfinished one of that name goes on")] = None,
    storage: Annotated[str, typer.Option(help="folder or URI of all runs")] = "runs",
    tracking_uri: TrackingUri = None,
    settings: Settings = None,
    register: Annotated[bool, typer.Option(help="put the best learner into the registry")] = True,
    as_json: AsJson = False,
) -> None:
    """Meta-train a recipe, track it in MLflow, register the best learner."""
    from metaray.cli import show
    from metaray.cli.display import ProgressDisplay
    from metaray.run import Options
    from metaray.run import run as run_experiment
    from metaray.training.overrides import override
    from metaray.training.placement import Placement
    from metaray.training.recipes import load_recipe

    experiment = override(load_recipe(recipe), settings or [])
    placement = Placement(workers, samplers, cpus_per_worker, device, address)
    options = Options(placement, run, storage, tracking_uri, register)
    display = ProgressDisplay(experiment, Console(stderr=True), STARTED_S)
    with stop_signals() as should_stop:
        report = run_experiment(experiment, options, display, should_stop=should_stop)
    show.report(report, as_json=as_json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder")],
    episodes: Annotated[int, typer.Option(min=2, help="how many")] = 1000,
    split: Annotated[str, typer.Option(help="meta-val or meta-test")] = "meta-test",
    tracking_uri: TrackingUri = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="change the learner's own experiment, e.g. source.path=FILE")
    ] = None,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Judge a registered learner on episodes of its own source, or of another."""
    from metaray.cli import show
    from metaray.evaluate import evaluate_model

    judged = evaluate_model(
        model, episodes=episodes, split=split, settings=settings or [], tracking=tracking_uri, trust=trust or []
    )
    show.judged(judged, as_json=as_json)


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder")],
    support: Annotated[Path, typer.Option(help="a folder with a folder of images per class")],
    query: Annotated[
        Path, typer.Option(help="a folder of images, or of a folder per class to be told how many are right")
    ],
    inner_steps: Annotated[int | None, typer.Option(min=0, help="instead of the learner's own")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of the task and the predictions")] = None,
    tracking_uri: TrackingUri = None,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Adapt a learner to a new task from a folder of images per class, and label other images."""
    import metaray
    from metaray.cli import show
    from metaray.serving.folders import read_query, read_support

    labelled, asked = read_support(support), read_query(query)
    learner = metaray.load(model, tracking_uri=tracking_uri, trust=trust or [])
    task = learner.adapt(labelled.paths, labelled.labels, inner_steps=inner_steps)
    show.predictions(task, labelled, asked, picture=picture, as_json=as_json)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGTERM asks for a checkpoint and a stop; so does the first Ctrl-C, a second one insists."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("stopping after this step, with a checkpoint ...", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: list[str] | None = None) -> None:
    """The `metaray` command. Exit codes: 0 done, 1 failed while running, 2 wrong input, 75 stopped by a signal."""
    try:
        app(args=argv)
    except InputError as error:
        _leave(2, "error", error)
    except RunFailed as error:
        _leave(1, "failed", error)
    except RunStopped as error:
        _leave(75, "stopped", error)


def _leave(code: int, word: str, error: Exception) -> None:
    print(f"{word}: {error}", file=sys.stderr, flush=True)
    sys.exit(code)
