"""`metaray tune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import SET_KEYS, Address, AsJson, LinkEncoder, Promote, RunStorage, TrackingUri, Trust, Verify
from metaray.cli.signals import stop_signals
from metaray.errors import InputError


def tune(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="The experiment or the search: path/to/file.py:function that returns one, or the JSON file of an "
            "experiment; may be left out where --run goes on with a search.",
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=DOMAIN",
            help="Search a field, by its dotted key, over uniform(LOW,HIGH), loguniform, randint, lograndint or "
            "choice(A,B,...). The keys are those of --set.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=f"Change a field of the recipe for all trials, by its dotted key. {SET_KEYS}",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of trials; with pbt the size of the population.")
    ] = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How values are chosen: random, grid, tpe (Optuna's Parzen estimator) or pbt (population-based).",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="NAME", help="How bad trials are stopped early: by asha, median or none.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to optimise on meta-val: quality (accuracy or mse) or loss."),
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of episodes that a whole trial sees; by default the recipe's."),
    ] = None,
    grace: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of episodes that a trial sees before it may be stopped."),
    ] = None,
    reduction_factor: Annotated[
        float | None, typer.Option(metavar="N", help="Number N of asha: one trial in N goes on at each rung.")
    ] = None,
    generations: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Number of generations of the population-based search (pbt)."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Seed of the values that the searcher draws, not of the trials."),
    ] = None,
    workers_per_trial: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Number of Ray Train workers of each trial; by default 0: each is one process."
        ),
    ] = None,
    samplers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of sampler actors of each trial that has workers; by default 2."),
    ] = None,
    cpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="N", help="Number of CPUs that each worker or trial reserves; by default 1."),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="N",
            help="Number of GPUs that a trial of one process reserves; by default 1, and 0.25 lets four share one.",
        ),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of trials that run at once; by default as many as fit."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="Device to compute on: auto (a GPU where there is one), cpu or cuda; by default auto.",
        ),
    ] = None,
    address: Address = None,
    hang_timeout: Annotated[
        float | None,
        typer.Option(
            min=10,
            metavar="SECONDS",
            help="Seconds without progress after which a trial's worker is replaced; by default 300.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the search; an unfinished one goes on, the result of a finished one is shown.",
        ),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write the winner's experiment to, for `metaray train FILE`."),
    ] = None,
    storage: RunStorage = "runs",
    tracking_uri: TrackingUri = None,
    register: Annotated[
        bool | None,
        typer.Option("--register/--no-register", help="Put the winner into the registry; by default it is."),
    ] = None,
    promote: Promote = False,
    link_encoder: LinkEncoder = False,
    trust: Trust = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Search hyperparameters of a recipe, inner learning rates first of all; judge and register the winner.

    A search that goes on runs as it was begun; an option that is given again is changed.
    """
    from metaray.api.tune import tune as tune_search
    from metaray.cli import show
    from metaray.tuning.recipes import describe

    changes = {
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
    given = {key: value for key, value in changes.items() if value is not None}
    if recipe is None:
        _check_goes_on(run, search, settings, given)
        if trust:
            import_from_here()
    described = None if recipe is None else describe(recipe, search or [], settings or [], given)
    with stop_signals("with the trials' newest checkpoints") as should_stop:
        report = tune_search(
            described,
            workers_per_trial=workers_per_trial,
            samplers=samplers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_trial=gpus_per_trial,
            concurrent=concurrent,
            device=device,
            address=address,
            hang_timeout_s=hang_timeout,
            run=run,
            storage=storage,
            tracking_uri=tracking_uri,
            register=register,
            promote=promote,
            link_encoder=link_encoder,
            apply=apply,
            trust=trust or [],
            verify=verify,
            should_stop=should_stop,
        )
    show.search(report, as_json=as_json)


def _check_goes_on(
    run: str | None, search: list[str] | None, settings: list[str] | None, given: dict[str, Any]
) -> None:
    """Check that a search without a recipe is one that goes on as it was begun."""
    if run is None:
        raise InputError("give a RECIPE to search, or the --run NAME of a search that is to go on")
    if search or settings or given:
        raise InputError(f"--run {run} without a RECIPE goes on with a search as it was begun; leave other options out")
