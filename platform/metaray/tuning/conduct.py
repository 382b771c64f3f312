"""One search, composed: checks -> Tune -> MLflow -> the winner, judged on meta-test and registered."""

import json
import os
import secrets
import shlex
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import final

import torch

from metaray.data.store_file import check_writable
from metaray.errors import InputError, RunFailed, RunStopped, redacted, unknown
from metaray.run import Options, run
from metaray.tracking.delivery import Report
from metaray.tracking.mlflow_tracker import Away, Status, asking, find_experiment
from metaray.tracking.provenance import provenance
from metaray.tracking.registry import tag_version
from metaray.tracking.retry import patience, retry
from metaray.tracking.server import Unreachable, prepare, tracking_uri
from metaray.training.cluster import join_cluster, uses_gpu
from metaray.training.events import Event, Listener
from metaray.training.experiment import Experiment
from metaray.training.identity import LOCK, NAME
from metaray.training.placement import Placement, Workers
from metaray.training.preflight import check_shares, preflight
from metaray.training.storage import Storage
from metaray.tuning import table
from metaray.tuning.figures import draw_all
from metaray.tuning.ledger import SEARCH, Ledger, open_ledger, read_header
from metaray.tuning.listener import SearchListener
from metaray.tuning.logbook import Logbook
from metaray.tuning.proposers import proposer_of
from metaray.tuning.room import Plan, Shares, plan
from metaray.tuning.search import Search
from metaray.tuning.trainable import Setup
from metaray.tuning.trial import Trial, trial_name, winner_of
from metaray.tuning.tuner import nodes, search_on_ray

AWAY_WITHIN_S = 120.0
WINNER = "winner.json"
FIGURES = "figures"


@dataclass(frozen=True)
class SearchOptions:
    """Where and how a search runs; nothing here changes what a trial computes.

    Attributes:
        shares: what each trial takes of the cluster; its `gpus` only where there are any.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
        hang_timeout_s: a worker of a multi-worker trial that makes no progress for so long is replaced.
        name: of the search; None makes a new one.
        storage: folder or URI of all runs.
        tracking_uri: of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: put the winner into the registry.
        apply: file to write the winner's experiment to.
    """

    shares: Shares = Shares()  # noqa: RUF009 - frozen
    device: str = "auto"
    address: str | None = None
    hang_timeout_s: float = 300.0
    name: str | None = None
    storage: str = "runs"
    tracking_uri: str | None = None
    register: bool = True
    apply: Path | None = None

    @property
    def trial_placement(self) -> Placement:
        """Of each trial."""
        shares = self.shares
        workers = Workers(shares.workers, shares.workers)
        return Placement(workers, shares.samplers, shares.cpus, self.device, None, self.hang_timeout_s)


@dataclass(frozen=True)
class SearchReport:
    """How a search ended.

    Attributes:
        name: of the search.
        search: its description.
        trials: all of them.
        winner: the best.
        experiment: that it trained.
        report: of the winner's run: meta-test, registry.
        storage: folder or URI of the search, with `trials.json`, `trials.parquet`, `winner.json` and `figures/`.
        tracking_run: id of its MLflow run.
        tracking_uri: where that is.
    """

    name: str
    search: Search
    trials: Sequence[Trial]
    winner: Trial
    experiment: Experiment
    report: Report
    storage: str
    tracking_run: str
    tracking_uri: str


def stored_search(storage: str, name: str) -> Search:
    """The search called `name`.

    Raises:
        InputError: if there is none; it lists those there are.
    """
    root = Storage(storage)
    if not NAME.fullmatch(name) or not root.exists(f"{name}/{SEARCH}"):
        known = [found for found in root.names() if root.exists(f"{found}/{SEARCH}")]
        raise unknown(f"search in {root.shown}:", name, known)
    return read_header(root.child(name)).search


def conduct(
    search: Search, options: SearchOptions, listener: SearchListener, *, should_stop: Callable[[], bool] = lambda: False
) -> SearchReport:
    """Search, track, judge and register the winner.

    Raises:
        InputError: before anything starts, if the input is wrong.
        RunFailed: if Tune failed, no trial came to anything, or MLflow does not take what was found.
        RunStopped: if `should_stop` said so; the same call with the same `options.name` goes on.
    """
    uri = tracking_uri(options.tracking_uri)
    storage = _checked(search, options, uri)
    busy, shares = _room(search, storage, options, listener)
    holder = f"process {os.getpid()} on host {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    with storage.locked(LOCK, holder):
        ledger = open_ledger(storage, search, provenance())
        name = storage.root.rstrip("/").rpartition("/")[2].partition("?")[0]
        listener.on_note(f"search: {name}")
        logbook = Logbook(ledger, name, uri, listener.on_note)
        try:
            if busy is not None:
                _search(ledger, logbook, options, shares, busy, listener, should_stop)
            return _concluded(ledger, logbook, options, name, uri, listener, should_stop)
        except BaseException as error:
            stopped = isinstance(error, RunStopped | KeyboardInterrupt)
            _mark(logbook, "KILLED" if stopped else "FAILED", error)
            raise


def _checked(search: Search, options: SearchOptions, uri: str) -> Storage:
    """Find out all that may be wrong, before anything is written; returns the storage of the search."""
    search.check()
    if options.apply is not None:
        check_writable(options.apply)
    name = options.name or f"{search.experiment.name}-search-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    if not NAME.fullmatch(name):
        raise InputError(f"search name {name!r}: use letters, digits, '.', '_' and '-'")
    root = Storage(options.storage)
    root.check_writable()
    experiment = search.experiment_of(search.initial(0))
    preflight(experiment)
    prepare(uri)
    with asking(uri):
        find_experiment(uri, experiment.name)
    return root.child(name)


def _room(
    search: Search, storage: Storage, options: SearchOptions, listener: SearchListener
) -> tuple[Plan | None, Shares]:
    """What fits into the cluster, unless nothing is left to train; and what each trial takes."""
    if storage.exists(SEARCH) and proposer_of(open_ledger(storage, search, {})).next(()) == "done":
        return None, options.shares
    join_cluster(options.address)
    gpu = uses_gpu(replace(options.trial_placement, workers=Workers(1, 1)))
    shares = replace(options.shares, gpus=(1.0 if options.shares.workers else options.shares.gpus) if gpu else 0.0)
    if shares.workers:
        check_shares(search.experiment_of(search.initial(0)), shares.workers, torch.device("cuda" if gpu else "cpu"))
    room = plan(shares, nodes(), search.population)
    listener.on_note(room.text)
    return room, shares


def _search(
    ledger: Ledger,
    logbook: Logbook,
    options: SearchOptions,
    shares: Shares,
    room: Plan,
    listener: SearchListener,
    should_stop: Callable[[], bool],
) -> None:
    setup = Setup(
        folder=str(Path.cwd()),
        storage=ledger.storage.root,
        fingerprint=ledger.header.fingerprint,
        objective=ledger.search.optimises,
        placement=options.trial_placement,
        again=ledger.search.scheduler != "none",
    )
    try:
        search_on_ray(ledger, setup, shares, room.at_once, _Both(listener, logbook), should_stop)
    finally:
        logbook.rest()


def _concluded(
    ledger: Ledger,
    logbook: Logbook,
    options: SearchOptions,
    name: str,
    uri: str,
    listener: SearchListener,
    should_stop: Callable[[], bool],
) -> SearchReport:
    """Judge the winner on meta-test, and bring everything to MLflow. May be done again."""
    again = _command(options, name)
    if should_stop():
        raise RunStopped(f"stopped by a signal; `{again}` goes on")
    trials = ledger.trials()
    winner = winner_of(trials, ledger.search.optimises)
    if winner is None:
        whys = "; ".join(f"{trial.name}: {trial.why}" for trial in trials[:3])
        raise RunFailed(f"none of {len(trials)} trials came to an evaluation: {whys}")
    _bring(logbook, uri, again, listener, should_stop)
    experiment = ledger.entry(winner.number).experiment
    to = Options(Placement(device=options.device), winner.name, ledger.storage.root, uri, options.register)
    report = run(experiment, to, _Notes(listener), should_stop=should_stop)
    files = _files(ledger, trials, winner, experiment)
    if options.apply is not None:
        _apply(options.apply, experiment)
    tags = _tags(ledger, name, logbook.parent, winner)
    with asking(uri):
        logbook.tag(tags)
        logbook.tag({"search.winner": "true"}, winner.number)
        if report.version is not None:
            tag_version(uri, report.version.name, report.version.version, tags)
    logbook.attach(files)
    logbook.finish("FINISHED")
    return SearchReport(
        name, ledger.search, ledger.trials(), winner, experiment, report, ledger.storage.root, logbook.parent, uri
    )


def _bring(logbook: Logbook, uri: str, again: str, listener: SearchListener, should_stop: Callable[[], bool]) -> None:
    """All trials to MLflow, however long it is away, within reason."""

    def tell() -> None:
        listener.on_note(f"MLflow at {redacted(uri)!r} does not answer; waiting up to {AWAY_WITHIN_S:g} s for it")

    try:
        waits = patience(AWAY_WITHIN_S, enough=should_stop, once=tell)
        retry(logbook.bring_all, on=(Away, Unreachable), waits=waits)
    except (RunFailed, InputError) as error:
        text = str(error).rstrip(".")
        raise RunFailed(f"the search is complete on disk, but MLflow lacks it: {text}. `{again}` uploads it") from error


def _files(ledger: Ledger, trials: Sequence[Trial], winner: Trial, experiment: Experiment) -> dict[str, bytes]:
    """What is to be known of the search, written into its folder."""
    search = ledger.search
    files = {
        "trials.json": table.to_json(trials, search.optimises),
        "trials.parquet": table.to_parquet(trials, search.optimises),
        WINNER: experiment.to_json().encode(),
    }
    title = f"{search.experiment.name}: {search.searcher}, {len(trials)} trials"
    with tempfile.TemporaryDirectory() as scratch:
        figures = {
            path.name: path.read_bytes()
            for path in draw_all(trials, search.logs, search.optimises, Path(scratch), title)
        }
    for name, data in files.items():
        ledger.storage.write(name, data)
    for name, data in figures.items():
        ledger.storage.write(f"{FIGURES}/{name}", data)
    return files | figures


def _apply(path: Path, experiment: Experiment) -> None:
    """Write the winner's experiment, whole or not at all."""
    Storage(str(path.parent)).write(path.name, experiment.to_json().encode())


def _tags(ledger: Ledger, name: str, parent: str, winner: Trial) -> dict[str, str]:
    search = ledger.search
    space = ", ".join(f"{key}={domain.expression()}" for key, domain in search.space.items())
    best = winner.best(search.optimises)
    assert best is not None
    return {
        "search": name,
        "search.run_id": parent,
        "search.space": space,
        "search.searcher": search.searcher,
        "search.scheduler": search.scheduler,
        "search.trials": str(len(ledger.numbers())),
        "search.winning_trial": trial_name(winner.number),
        "search.winning_settings": json.dumps(dict(winner.settings)),
        f"search.meta_val.{search.optimises.name}": f"{best.value:.6g} +- {best.half_width:.2g}",
    }


def _command(options: SearchOptions, name: str) -> str:
    """What to type to go on."""
    return shlex.join(["metaray", "tune", "--run", name, "--storage", redacted(options.storage)])


def _mark(logbook: Logbook, status: Status, error: BaseException) -> None:
    """Mark the search's run; a server that is gone by now must not hide what ended it."""
    try:
        logbook.finish(status)
    except RunFailed as unmarked:
        error.add_note(str(unmarked))


@final
class _Both(SearchListener):
    """The user's listener, and the logbook."""

    def __init__(self, listener: SearchListener, logbook: Logbook) -> None:
        self._listener, self._logbook = listener, logbook

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        self._listener.on_trials(trials, changed)
        self._logbook.touch(changed.number)

    def on_note(self, text: str) -> None:
        self._listener.on_note(text)


@final
class _Notes(Listener):
    """What the winner's run says while it is judged, as notes of the search."""

    def __init__(self, listener: SearchListener) -> None:
        self._listener = listener

    def on_event(self, event: Event) -> None:
        if event.kind == "note":
            self._listener.on_note(event.text)

    def close(self) -> None:
        pass
