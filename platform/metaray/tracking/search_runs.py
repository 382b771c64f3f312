"""A search in MLflow: one run for it, and below it one for each trial, fed from the ledger."""

import queue
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from metaray.errors import RunFailed, redacted
from metaray.experiment.overrides import flatten
from metaray.records.failure import FAILURE
from metaray.records.run import Run
from metaray.retry import retry
from metaray.tracking.feed import JournalFeed
from metaray.tracking.history import require_there
from metaray.tracking.mlflow_run import MlflowRun, RunStatus
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.server import MlflowServer
from metaray.tracking.story import log_data, open_in_training_view, source_tags
from metaray.tuning.ledger import Header, Ledger
from metaray.tuning.listener import SearchListener
from metaray.tuning.trial import ENDED, Trial, TrialStatus, trial_name

PARENT = "mlflow.parentRunId"
RESTS_WITHIN_S = 60.0
SEARCH_ID, NUMBER, STATUS, WHY = "search.id", "search.trial", "search.status", "search.why"
STATUSES: Mapping[TrialStatus, RunStatus] = {"finished": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}


class SearchRuns:
    """Tracks a search in MLflow, in a thread of its own; what MLflow does not accept is sent again at the end.

    Args:
        ledger: Ledger of the search.
        name: Name of the search.
        server: MLflow server.
        note: Function that is called once with a message if MLflow accepts nothing.
    """

    def __init__(self, ledger: Ledger, name: str, server: MlflowServer, note: Callable[[str], None]) -> None:
        self._ledger, self._name, self._server, self._note = ledger, name, server, note
        self._experiment = ledger.search.experiment
        self.parent = self._opened()
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._told = False
        self._thread = threading.Thread(target=self._serve, name="search-search_runs", daemon=True)
        self._thread.start()

    def touch(self, number: int) -> None:
        """Bring a trial up to date, soon."""
        self._queue.put(number)

    def rest(self) -> None:
        """Wait until the thread has finished its work, and end it; a hanging server is not waited for."""
        self._queue.put(None)
        self._thread.join(RESTS_WITHIN_S)

    def bring_all(self) -> None:
        """Bring the MLflow runs of all trials up to date, synchronously.

        Raises:
            TrackingAway: If MLflow does not answer.
            RunFailed: If MLflow refuses the request.
        """
        self._server.prepare()
        for number in self._ledger.numbers():
            self._bring(number)

    def tag(self, tags: Mapping[str, str], number: int | None = None) -> None:
        """Tag the search's run, or that of a trial."""
        run = self.parent if number is None else self._known(number)
        assert run is not None
        with self._server.asking():
            run.set_tags(tags)

    def attach(self, files: Mapping[str, bytes]) -> None:
        """Put files into the search's run."""
        with tempfile.TemporaryDirectory() as scratch:
            for name, data in files.items():
                path = Path(scratch) / name
                path.write_bytes(data)
                self.parent.log_file(path)

    def _known(self, number: int) -> MlflowRun | None:
        """The MLflow run of a trial, as far as it is written down."""
        found = self._ledger.trial(number).tracking_run
        return None if found is None else MlflowRun(self._server, found)

    def _opened(self) -> MlflowRun:
        """The search's run: the one that it has, marked as running, or a new one."""
        header = self._ledger.header
        mine = {SEARCH_ID: header.id, NUMBER: "none"}
        with self._server.asking():
            found = MlflowRun.tagged(self._server, self._experiment.name, mine)
            if found is not None:
                found.reopen()
                return found
            params = flatten({"search": self._ledger.search.model_dump(mode="json", exclude={"experiment"})})
            params |= flatten(self._experiment.model_dump(mode="json"))
            tags = dict(header.tags) | mine | {"source.fingerprint": header.fingerprint} | source_tags(header.tags)
            made = MlflowRun.create(self._server, self._experiment.name, self._name, params, tags)
            made.log_text(self._experiment.to_json(), "experiment.json")
            log_data(made, self._experiment, header.fingerprint)
            open_in_training_view(self._server, self._experiment)
            return made

    def _serve(self) -> None:
        while (number := self._queue.get()) is not None:
            try:
                # A trial that starts sweeps its folder, and with it what is just being written there.
                retry(lambda: self._bring(number), on=RunFailed, transient=_was_swept)
            except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; `bring_all` does it again
                if not self._told:
                    self._told = True
                    self._note(f"{redacted(str(error))}; trials wait in {self._ledger.storage.shown}")

    def _bring(self, number: int) -> None:
        """What the ledger knows of a trial, to its MLflow run."""
        trial, run = self._ledger.trial(number), self._ledger.run_of(number)
        with self._server.asking():
            tracker = self._tracker(Run(trial.name, run), number)
            JournalFeed(Run(trial.name, run), tracker).send()
            tracker.mlflow_run.set_tags(_tags(trial))
            if trial.status == "failed" and run.exists(FAILURE):
                tracker.log_text(run.read(FAILURE).decode(), FAILURE)
        if trial.status in ENDED:
            tracker.mlflow_run.finish(STATUSES[trial.status])

    def _tracker(self, run: Run, number: int) -> MlflowTracker:
        """Writes to the MLflow run of a trial: the one it has, one that a kill has kept from being written down, or
        a new one."""
        known = self._known(number)
        if known is not None and known.is_there:
            return MlflowTracker.of(known)
        header, entry = self._ledger.header, self._ledger.entry(number)
        mine = {SEARCH_ID: header.id, NUMBER: str(number)}
        tags: dict[str, Any] = {
            **header.tags,
            **mine,
            PARENT: self.parent.id,
            "source.fingerprint": entry.fingerprint,
            "protocol": entry.experiment.protocol,
        }
        if entry.origin is not None:
            tags["search.origin"] = f"{trial_name(entry.origin.trial)} after step {entry.origin.step}"
        found = MlflowRun.tagged(self._server, entry.experiment.name, mine)
        run.begin(entry.experiment, tags=tags, tracking_run=found.id if found else "", fingerprint=entry.fingerprint)
        return MlflowTracker.opened(self._server, entry.experiment, run)


def search_run(server: MlflowServer, header: Header) -> str | None:
    """Id of a search's MLflow run; None if there is none.

    Raises:
        RunFailed: If MLflow does not exist there, or does not answer.
    """
    require_there(server)
    with server.asking("the search's run could not be looked up"):
        found = MlflowRun.tagged(server, header.search.experiment.name, {SEARCH_ID: header.id, NUMBER: "none"})
    return None if found is None else found.id


def _was_swept(error: Exception) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)


def _tags(trial: Trial) -> dict[str, str]:
    return {STATUS: trial.status, WHY: trial.why} if trial.why else {STATUS: trial.status}


@final
class Followed(SearchListener):
    """The user's listener, and the search's runs."""

    def __init__(self, listener: SearchListener, search_runs: SearchRuns) -> None:
        self._listener, self._search_runs = listener, search_runs

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """See `SearchListener`."""
        self._listener.on_trials(trials, changed)
        self._search_runs.touch(changed.number)

    def on_note(self, text: str) -> None:
        """See `SearchListener`."""
        self._listener.on_note(text)
