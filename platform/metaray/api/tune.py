"""One search, composed: checks -> Tune -> MLflow -> the winner, judged on meta-test and registered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaray.api.checks import can_be_linked, check_experiment, writable_storage
from metaray.api.saved_options import options_of, remember
from metaray.api.search_end import SearchReport, finish_search
from metaray.api.search_options import SearchOptions
from metaray.config import NAME, check_name
from metaray.data.store_file import check_writable
from metaray.displays.progress import SearchProgress, shown_search
from metaray.distributed.cluster import join_cluster, uses_gpu
from metaray.distributed.cluster_nodes import alive_nodes, check_storage_everywhere
from metaray.distributed.trainable import Setup
from metaray.distributed.tuner import search_on_ray
from metaray.errors import InputError, RunStopped, unknown
from metaray.experiment.experiment import Experiment
from metaray.records.blobs import check_linkable
from metaray.records.provenance import provenance
from metaray.records.run import fresh_name, held
from metaray.records.storage import Storage
from metaray.tracking.mlflow_run import find_experiment
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.run_upload import mark_ended
from metaray.tracking.search_runs import Followed, SearchRuns
from metaray.tracking.server import MlflowServer
from metaray.training.checks.preflight import check_chunks, check_shares
from metaray.training.placement import Workers
from metaray.tuning.capacity import Capacity, Shares, capacity_of
from metaray.tuning.ledger import SEARCH, Ledger, open_ledger, read_header
from metaray.tuning.listener import SearchListener
from metaray.tuning.proposers import proposer_of
from metaray.tuning.recipes import search_of
from metaray.tuning.search import Search
from metaray.tuning.space import Domain
from metaray.tuning.untried import why_no_more


def stored_search(storage: str, name: str, trust: Sequence[str] = ()) -> Search:
    """Load the description of the search called `name`.

    Args:
        storage: Folder or URI that holds the folders of all runs.
        name: Name of the search.
        trust: Packages besides metaray whose code the search may name, since somebody else may have written it.

    Raises:
        InputError: If there is no such search (the message lists those there are), or it names code of a package that
            is not trusted.
    """
    root = Storage(storage)
    if not NAME.fullmatch(name) or not root.exists(f"{name}/{SEARCH}"):
        known = [found for found in root.names() if root.exists(f"{found}/{SEARCH}")]
        raise unknown(f"search in {root.shown}:", name, known)
    return read_header(root.child(name), trust).search


def tune(
    search: Search | Experiment | None = None,
    space: Mapping[str, Domain | str] | None = None,
    *,
    trials: int | None = None,
    searcher: str | None = None,
    scheduler: str | None = None,
    objective: str | None = None,
    episodes: int | None = None,
    grace: int | None = None,
    reduction_factor: float | None = None,
    generations: int | None = None,
    seed: int | None = None,
    workers_per_trial: int | None = None,
    samplers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_trial: float | None = None,
    concurrent: int | None = None,
    device: str | None = None,
    address: str | None = None,
    hang_timeout_s: float | None = None,
    run: str | None = None,
    storage: str = "runs",
    tracking_uri: str | None = None,
    register: bool | None = None,
    promote: bool = False,
    link_encoder: bool = False,
    apply: Path | None = None,
    trust: Sequence[str] = (),
    verify: bool = False,
    progress: SearchProgress = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchReport:
    """Search hyperparameters such as inner learning rates, evaluate the winner on meta-test, and register it.

    If `run` names a search that was begun, the search is resumed with its own settings, except for those that are given
    again.

    Example: `metaray.tune(experiment, {"algorithm.inner_lr": "loguniform(1e-3, 1)"}, trials=16)`.

    Args:
        search: A search, or the experiment that its trials train; None resumes the search named `run`.
        space: Domains of the searched fields, by their dotted keys, in addition to those of `search`.
        trials: Number of trials; with "pbt" the size of the population.
        searcher: How values are chosen: "random", "grid", "tpe" or "pbt".
        scheduler: How bad trials are stopped early: "asha", "median" or "none".
        objective: Objective on meta-val: "quality" (the score of the task kind, such as accuracy or mean squared error)
            or "loss".
        episodes: Number of meta-train episodes of a complete trial.
        grace: Number of episodes before a trial may be stopped early.
        reduction_factor: Reduction factor R of "asha": one trial in R continues at each rung.
        generations: Number of generations of "pbt".
        seed: Seed of the values that the searcher draws.
        workers_per_trial: Number of Ray Train workers of each trial; by default each trial is one process.
        samplers: Number of sampler actors of each trial that has workers.
        cpus_per_worker: Number of CPUs that each worker or trial reserves.
        gpus_per_trial: Number of GPUs that a trial of one process reserves, if there are any.
        concurrent: Number of trials that run at once; None runs as many as fit.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: Address of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
        hang_timeout_s: Seconds without progress after which a worker is replaced.
        run: Name of the search; None makes a new one.
        storage: Folder or URI that holds the folders of all runs.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: Whether to register the winner's learner; None does.
        promote: Whether to make it @champion whatever the comparison on meta-val says.
        link_encoder: Whether to keep the winner's frozen encoder in the storage, once for all versions that have it.
        apply: Path of a file to write the winner's experiment to.
        trust: Packages besides metaray whose code a search that somebody else began may name.
        verify: Whether to compare the data with their fingerprint even if that was done before.
        progress: Whether to show progress; or a listener to the trials' events.
        should_stop: Function that is called regularly; if it returns true, the trials stop, and another call resumes
            them from their checkpoints.

    Returns:
        How the search ended: all trials, the winner, and the winner's run. It prints as the command line does.

    Raises:
        InputError: If the input is invalid; nothing has started then.
        RunFailed: If Ray Tune failed, no trial finished, or MLflow did not accept the results.
        RunStopped: If `should_stop` returned true; the same call with the name of the search resumes it.
    """
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
    said = {key: value for key, value in changes.items() if value is not None}
    wanted = _wanted(search, space or {}, said, run, storage, trust)
    given = {
        "workers_per_trial": workers_per_trial,
        "samplers": samplers,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_trial": gpus_per_trial,
        "concurrent": concurrent,
        "device": device,
        "address": address,
        "hang_timeout": hang_timeout_s,
        "tracking_uri": tracking_uri,
        "registered": register,
        "promote": promote or None,
        "link_encoder": link_encoder or None,
        "apply": None if apply is None else str(apply),
    }
    options, remembered = options_of(run, storage, given, verify=verify)
    with shown_search(progress, wanted) as listener:
        if remembered.text:
            listener.on_note(f"as it was begun: {remembered.text}")
        return run_search(wanted, options, listener, should_stop=should_stop)


def _wanted(
    search: Search | Experiment | None,
    space: Mapping[str, Domain | str],
    changes: Mapping[str, Any],
    run: str | None,
    storage: str,
    trust: Sequence[str],
) -> Search:
    """The search that a call describes."""
    if search is not None:
        return search_of(search, space, changes)
    if run is None:
        raise InputError("give an experiment or a search, or the name of a search that is to go on")
    if space or changes:
        raise InputError(f"search {run!r} goes on as it was begun; leave other options out, or give its experiment")
    return stored_search(storage, run, trust)


def run_search(
    search: Search, options: SearchOptions, listener: SearchListener, *, should_stop: Callable[[], bool] = lambda: False
) -> SearchReport:
    """Search, track, judge and register the winner.

    Raises:
        InputError: If the input is wrong; nothing has started then.
        RunFailed: If Tune failed, no trial came to anything, or MLflow does not take what was found.
        RunStopped: If `should_stop` said so; the same call with the same `options.name` goes on.
    """
    server = MlflowServer.of(options.tracking_uri)
    storage = _checked(search, options, server)
    busy, shares = _room(search, storage, options, listener)
    with held(storage):
        ledger = open_ledger(storage, search, provenance())
        remember(storage, options)
        name = storage.root.rstrip("/").rpartition("/")[2].partition("?")[0]
        listener.on_note(f"search: {name}")
        search_runs = SearchRuns(ledger, name, server, listener.on_note)
        try:
            if busy is not None:
                _search(ledger, search_runs, options, shares, busy, listener, should_stop)
            search_runs.rest()
            if not should_stop() and (why := why_no_more(search, len(ledger.numbers()))) is not None:
                listener.on_note(why)
            return finish_search(ledger, search_runs, options, name, server, listener, should_stop)
        except BaseException as error:
            search_runs.rest()
            stopped = isinstance(error, RunStopped | KeyboardInterrupt)
            mark_ended([MlflowTracker.of(search_runs.parent)], "stopped" if stopped else "failed", error)
            raise


def _checked(search: Search, options: SearchOptions, server: MlflowServer) -> Storage:
    """Find out all that may be wrong, before anything is written; returns the storage of the search."""
    search.check()
    if options.link_encoder:
        check_linkable(all(can_be_linked(experiment) for experiment in search.at_ends()))
    if options.apply is not None:
        check_writable(options.apply)
    name = options.name or fresh_name(f"{search.experiment.name}-search")
    check_name(name, "search name")
    root = writable_storage(options.storage)
    experiment = search.experiment_of(search.initial(0))
    check_experiment(experiment, torch.device("cpu"), verify=options.verify)
    server.prepare()
    with server.asking():
        find_experiment(server, experiment.name)
    return root.child(name)


def _room(
    search: Search, storage: Storage, options: SearchOptions, listener: SearchListener
) -> tuple[Capacity | None, Shares]:
    """What fits into the cluster, unless nothing is left to train; and what each trial takes."""
    if storage.exists(SEARCH):
        with held(storage):  # to ask for the next trial writes it down
            if proposer_of(open_ledger(storage, search, {})).next(()) == "done":
                return None, options.shares
    join_cluster(options.address)
    gpu = uses_gpu(replace(options.trial_placement, workers=Workers(1, 1)))
    shares = replace(options.shares, gpus=(1.0 if options.shares.workers else options.shares.gpus) if gpu else 0.0)
    first, device = search.experiment_of(search.initial(0)), torch.device("cuda" if gpu else "cpu")
    if shares.workers:
        check_shares(first, shares.workers, device)
    if gpu:
        check_chunks(first, device)
    capacity = capacity_of(shares, alive_nodes(), search.population)
    listener.on_note(capacity.text)
    check_storage_everywhere(Storage(options.storage))
    return capacity, shares


def _search(
    ledger: Ledger,
    search_runs: SearchRuns,
    options: SearchOptions,
    shares: Shares,
    capacity: Capacity,
    listener: SearchListener,
    should_stop: Callable[[], bool],
) -> None:
    setup = Setup(
        folder=str(Path.cwd()),
        trust=ledger.search.packages,
        storage=ledger.storage.root,
        objective=ledger.search.optimises,
        placement=options.trial_placement,
        again=ledger.search.scheduler != "none",
    )
    search_on_ray(ledger, setup, shares, capacity.at_once, Followed(listener, search_runs), should_stop)
