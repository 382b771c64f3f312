"""The commands, and how errors become exit codes."""

import shlex
import sys
import time
import traceback
from typing import Annotated, Any, NoReturn

import typer

from metaray.cli import data, registry, runs
from metaray.cli.help import AS_WIDE_AS_THE_TERMINAL, Command, Group
from metaray.cli.imports import import_from_here
from metaray.cli.init import init
from metaray.cli.options import (
    SET_KEYS,
    Address,
    AsJson,
    DataOn,
    LinkEncoder,
    Profile,
    Promote,
    RunStorage,
    TrackingUri,
    Trust,
    Verbose,
    Verify,
    is_verbose,
)
from metaray.cli.recipes import recipes, show
from metaray.cli.report import report
from metaray.cli.signals import stop_signals
from metaray.cli.submit import PASS_ON, jobs, submit
from metaray.cli.tasks import adapt, extend, predict
from metaray.cli.tune import tune
from metaray.cli.use import compare, evaluate
from metaray.errors import InputError, RunFailed, RunStopped, redacted, shareable

STARTED_S = time.time()

app = typer.Typer(
    name="metaray",
    cls=Group,
    context_settings=AS_WIDE_AS_THE_TERMINAL,
    help="Meta-train few-shot learners on a Ray cluster, search their hyperparameters, register them, adapt them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help and messages: the same on a terminal and in a log, and nothing of a message is cut or wrapped.
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(registry.app, name="registry")
app.add_typer(jobs, name="jobs")

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="The experiment: path/to/file.py:function that returns one, or the JSON file of one.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help=f"Change a field of the recipe, by its dotted key. {SET_KEYS}"),
]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from importlib import metadata

        print(f"metaray {metadata.version('metaray')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


# In the order in which a user needs them, which is that of the help.
for first in (init, recipes, show):
    app.command(cls=Command)(first)


@app.command(cls=Command)
def train(
    recipe: Recipe,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Number of Ray Train workers: 2, or 1:4 to follow the cluster; 0 trains in this process, without Ray.",
        ),
    ] = "0",
    samplers: Annotated[int, typer.Option(min=1, metavar="N", help="Number of actors that sample episodes ahead.")] = 2,
    cpus_per_worker: Annotated[
        float, typer.Option(min=0.01, metavar="N", help="Number of CPUs that each worker reserves.")
    ] = 1.0,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device to compute on: auto (a GPU where there is one), cpu or cuda.")
    ] = "auto",
    address: Address = None,
    hang_timeout: Annotated[
        float,
        typer.Option(
            min=10, metavar="SECONDS", help="Seconds without progress after which a worker is killed and replaced."
        ),
    ] = 300.0,
    spread: Annotated[bool, typer.Option("--spread", help="Spread workers over as many nodes as possible.")] = False,
    samplers_on: Annotated[
        str,
        typer.Option(
            metavar="NODES",
            help="Where sampler actors may run: any, cpu (nodes without GPUs), or workers (where those can run).",
        ),
    ] = "any",
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the run; an unfinished one goes on, the result of a finished one is shown."
        ),
    ] = None,
    extend: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Train the finished --run for N outer steps more: in place where its learning rates do not depend on "
            "the number of steps, else as a new run that starts from it. Which it is, and why, is said first.",
        ),
    ] = None,
    storage: RunStorage = "runs",
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Where people look at the run: mlflow (the default), tensorboard, none, or module:Class of your own; "
            "may be given several times.",
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    settings: Settings = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Only list the keys that --set takes, what they mean, and their values.")
    ] = False,
    register: Annotated[
        bool | None,
        typer.Option(
            "--register/--no-register",
            help="Put the best learner into the registry; by default with MLflow.",
        ),
    ] = None,
    promote: Promote = False,
    link_encoder: LinkEncoder = False,
    verify: Verify = False,
    data_on: DataOn = "auto",
    profile: Profile = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Meta-train a recipe, track it, and register the best learner."""
    from functools import partial

    from metaray.api.extend import extend as extend_run
    from metaray.api.train import NotUploaded
    from metaray.api.train import train as train_run
    from metaray.cli import show as shown
    from metaray.cli.keys import print_keys
    from metaray.displays.progress import shown_run
    from metaray.experiment.overrides import override
    from metaray.experiment.recipes import load_recipe

    experiment = override(load_recipe(recipe), settings or [])
    if keys:
        print_keys(experiment)
        return
    options: dict[str, Any] = {
        "workers": workers,
        "samplers": samplers,
        "cpus_per_worker": cpus_per_worker,
        "device": device,
        "address": address,
        "hang_timeout_s": hang_timeout,
        "spread": spread,
        "samplers_on": samplers_on,
        "run": run,
        "storage": storage,
        "tracker": tracker or "mlflow",
        "tracking_uri": tracking_uri,
        "register": register,
        "promote": promote,
        "link_encoder": link_encoder,
        "verify": verify,
        "data_on": data_on,
        "profile": profile or 0,
        "progress": partial(shown_run, True, started_s=STARTED_S),
    }
    with stop_signals() as should_stop:
        try:
            if extend is not None:
                report = extend_run(experiment, extend, should_stop=should_stop, **options)
            else:
                report = train_run(experiment, should_stop=should_stop, **options)
        except NotUploaded as problem:
            shown.report(problem.report, as_json=as_json)
            raise
    shown.report(report, as_json=as_json)


def upload(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, a folder in --storage.")],
    storage: RunStorage = "runs",
    tracking_uri: TrackingUri = None,
    register: Annotated[bool, typer.Option(help="Put the best learner into the registry.")] = True,
    promote: Promote = False,
    link_encoder: LinkEncoder = False,
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Upload to MLflow what it lacks of a run: after MLflow was away, or to another MLflow server."""
    from metaray.api.train import NotUploaded
    from metaray.api.upload import Unfinished
    from metaray.api.upload import upload as upload_run
    from metaray.cli import show as shown

    if trust:
        import_from_here()
    try:
        done = upload_run(
            run,
            storage=storage,
            tracking=tracking_uri,
            register=register,
            promote=promote,
            link_encoder=link_encoder,
            trust=trust or [],
        )
    except NotUploaded as problem:
        shown.report(problem.report, as_json=as_json)
        raise
    if isinstance(done, Unfinished):
        shown.unfinished(done, as_json=as_json)
    else:
        shown.report(done, as_json=as_json)


# In the order in which a user needs them, which is that of the help.
for command in (tune, evaluate, compare, report, adapt, extend, predict, upload):
    app.command(cls=Command)(command)
app.command(cls=Command, context_settings=PASS_ON)(submit)

# typer brings its own copy of click, where these live under no public name.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main(argv: list[str] | None = None) -> None:
    """Run the `metaray` command.

    Exit codes: 0 done, 1 failed while running, 2 invalid input, 75 stopped by a signal.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = app(arguments, prog_name="metaray", standalone_mode=False)
    except UsageError as error:
        _leave(2, "error", _usage(error, arguments))
    except InputError as error:
        _leave(2, "error", error)
    except RunFailed as error:
        _leave(1, "failed", error)
    except RunStopped as error:
        _leave(75, "stopped", error)
    except typer.Abort:
        _leave(1, "failed", "interrupted")
    except Exception as error:  # only one that tells a secret ends here, without it
        if shareable(error) is None:
            _leave(1, "failed", "".join(traceback.format_exception(error)))
        raise
    if code:
        sys.exit(code)


def _usage(error: Any, arguments: list[str]) -> str:
    """What is wrong with the command line, the line itself (typer leaves the value out), and where to read more."""

    message = str(error.format_message()).strip()
    end = "" if message.endswith((".", "?")) else "."
    line = shlex.join(["metaray", *map(redacted, arguments)])
    return f"{message}{end} In `{line}`; see `{error.ctx.command_path if error.ctx else 'metaray'} --help`."


def _leave(code: int, word: str, problem: object) -> NoReturn:
    told = getattr(problem, "tracebacks" if is_verbose() else "told", "")
    notes = [part for part in (told, *getattr(problem, "__notes__", [])) if part]
    print(redacted("\n".join([f"{word}: {problem}", *notes])), file=sys.stderr, flush=True)
    sys.exit(code)
