"""`metaray tune`."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaray.cli.options import AsJson, Promote, RunStorage, TrackingUri, Trust, Verify
from metaray.cli.signals import stop_signals
from metaray.errors import InputError

if TYPE_CHECKING:
    from metaray.tuning.search import Search


def tune(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="path/to/file.py:function that returns an Experiment or a Search, or an experiment's JSON file; "
            "may be left out where --run goes on with a search"
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(help="dotted.key=DOMAIN, as in algorithm.inner_lr='loguniform(1e-3,1)'; may be repeated"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="dotted.key=value for all trials; may be repeated")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="how many; with pbt the population")] = None,
    searcher: Annotated[str | None, typer.Option(help="random, grid, tpe or pbt")] = None,
    scheduler: Annotated[str | None, typer.Option(help="who is stopped early: asha, median or none")] = None,
    objective: Annotated[str | None, typer.Option(help="on meta-val: quality (accuracy or mse) or loss")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="that a whole trial sees; by default the recipe's")
    ] = None,
    grace: Annotated[int | None, typer.Option(min=1, help="episodes before a trial may be stopped")] = None,
    reduction_factor: Annotated[float | None, typer.Option(help="of asha: one trial in so many goes on")] = None,
    generations: Annotated[int | None, typer.Option(min=2, help="of pbt")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the searcher")] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=0, help="Ray Train workers of each trial; 0 trains each in one process")
    ] = 0,
    samplers: Annotated[int, typer.Option(min=1, help="sampler actors of each trial that has workers")] = 2,
    cpus_per_worker: Annotated[float, typer.Option(min=0.01, help="CPUs that each worker or trial reserves")] = 1.0,
    gpus_per_trial: Annotated[
        float, typer.Option(min=0.01, help="GPUs that a trial of one process reserves; 0.25 lets four share one")
    ] = 1.0,
    concurrent: Annotated[int | None, typer.Option(min=1, help="trials at once; by default as many as fit")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda")] = "auto",
    address: Annotated[
        str | None, typer.Option(help="of a running Ray cluster; by default $RAY_ADDRESS, else a local one is started")
    ] = None,
    hang_timeout: Annotated[
        float, typer.Option(min=10, help="seconds without progress after which a trial's worker is replaced")
    ] = 300.0,
    run: Annotated[
        str | None, typer.Option(help="name of the search; an unfinished one goes on, a finished one is shown")
    ] = None,
    apply: Annotated[
        Path | None, typer.Option(help="file to write the winner's experiment to, for `metaray train FILE`")
    ] = None,
    storage: RunStorage = "runs",
    tracking_uri: TrackingUri = None,
    register: Annotated[bool, typer.Option(help="put the winner into the registry")] = True,
    promote: Promote = False,
    trust: Trust = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Search hyperparameters of a recipe, inner learning rates first of all; judge and register the winner."""
    from rich.console import Console

    from metaray.cli import show
    from metaray.cli.trials import TrialsDisplay
    from metaray.tuning.conduct import conduct
    from metaray.tuning.options import SearchOptions
    from metaray.tuning.room import Shares

    given = {
        "trials": trials,
        "searcher": searcher,
        "scheduler": scheduler,
        "objective": objective,
        "episodes": episodes,
        "grace": grace,
        "reduction_factor": reduction_factor,
        "generations": generations,
        "seed": seed,
    }
    wanted = _wanted(recipe, search or [], settings or [], given, run, storage, trust or [])
    shares = Shares(workers_per_trial, samplers, cpus_per_worker, gpus_per_trial, concurrent)
    options = SearchOptions(
        shares, device, address, hang_timeout, run, storage, tracking_uri, register, promote, apply, verify
    )
    display = TrialsDisplay(wanted, Console(stderr=True))
    with closing(display), stop_signals("with the trials' newest checkpoints") as should_stop:
        report = conduct(wanted, options, display, should_stop=should_stop)
    show.search(report, apply=apply, as_json=as_json)


def _wanted(
    recipe: str | None,
    space: list[str],
    settings: list[str],
    given: dict[str, Any],
    run: str | None,
    storage: str,
    trust: list[str],
) -> "Search":
    """The search that the command line describes."""
    from metaray.cli.imports import import_from_here
    from metaray.tuning.conduct import stored_search
    from metaray.tuning.recipes import describe

    changes = {key: value for key, value in given.items() if value is not None}
    if recipe is not None:
        return describe(recipe, space, settings, changes)
    if run is None:
        raise InputError("give a RECIPE to search, or the --run NAME of a search that is to go on")
    if space or settings or changes:
        raise InputError(f"--run {run} without a RECIPE goes on with a search as it was begun; leave other options out")
    if trust:
        import_from_here()
    return stored_search(storage, run, trust)
