"""One search, composed: checks -> Tune -> MLflow -> the winner, judged on meta-test and registered."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import torch

from metaray.api.checks import check_experiment, writable_storage
from metaray.api.saved_options import remember
from metaray.api.search_end import SearchReport, finish_search
from metaray.api.search_options import SearchOptions
from metaray.config import NAME, check_name
from metaray.data.store_file import check_writable
from metaray.distributed.cluster import join_cluster, uses_gpu
from metaray.distributed.cluster_nodes import alive_nodes, check_storage_everywhere
from metaray.distributed.trainable import Setup
from metaray.distributed.tuner import search_on_ray
from metaray.errors import RunStopped, unknown
from metaray.records.provenance import provenance
from metaray.records.run import fresh_name, held
from metaray.records.storage import Storage
from metaray.tracking.mlflow_run import find_experiment
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.run_upload import mark_ended
from metaray.tracking.search_runs import SearchRuns
from metaray.tracking.server import MlflowServer
from metaray.training.checks.preflight import check_chunks, check_shares
from metaray.training.placement import Workers
from metaray.tuning.capacity import Capacity, Shares, capacity_of
from metaray.tuning.ledger import SEARCH, Ledger, open_ledger, read_header
from metaray.tuning.listener import SearchListener
from metaray.tuning.proposers import proposer_of
from metaray.tuning.search import Search
from metaray.tuning.trial import Trial
from metaray.tuning.untried import why_no_more


def stored_search(storage: str, name: str, trust: Sequence[str] = ()) -> Search:
    """The search called `name`.

    Args:
        storage: of all runs.
        name: of the search.
        trust: packages besides metaray whose code it may name, as somebody else may have written it.

    Raises:
        InputError: if there is none (it lists those there are), or it asks for code that is not trusted.
    """
    root = Storage(storage)
    if not NAME.fullmatch(name) or not root.exists(f"{name}/{SEARCH}"):
        known = [found for found in root.names() if root.exists(f"{found}/{SEARCH}")]
        raise unknown(f"search in {root.shown}:", name, known)
    return read_header(root.child(name), trust).search


def tune(
    search: Search, options: SearchOptions, listener: SearchListener, *, should_stop: Callable[[], bool] = lambda: False
) -> SearchReport:
    """Search, track, judge and register the winner.

    Raises:
        InputError: before anything starts, if the input is wrong.
        RunFailed: if Tune failed, no trial came to anything, or MLflow does not take what was found.
        RunStopped: if `should_stop` said so; the same call with the same `options.name` goes on.
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
    search_on_ray(ledger, setup, shares, capacity.at_once, _Both(listener, search_runs), should_stop)


@final
class _Both(SearchListener):
    """The user's listener, and the search_runs."""

    def __init__(self, listener: SearchListener, search_runs: SearchRuns) -> None:
        self._listener, self._search_runs = listener, search_runs

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        self._listener.on_trials(trials, changed)
        self._search_runs.touch(changed.number)

    def on_note(self, text: str) -> None:
        self._listener.on_note(text)
