"""A search in MLflow: one run for it, and below it one for each trial, fed from the ledger."""

import queue
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaray.errors import RunFailed, redacted
from metaray.experiment.overrides import flatten
from metaray.records.failure import FAILURE
from metaray.records.run_folder import RunFolder, record_run
from metaray.retry import retry
from metaray.tracking.mlflow_tracker import (
    MlflowTracker,
    RunStatus,
    asking,
    create_run,
    find_tagged,
    finish_run,
    is_there,
    log_metrics,
    reopen_run,
    set_tags,
)
from metaray.tracking.run_upload import open_tracking
from metaray.tracking.server import prepare
from metaray.tuning.ledger import Ledger
from metaray.tuning.trial import ENDED, Trial, TrialStatus, trial_name

PARENT = "mlflow.parentRunId"
RESTS_WITHIN_S = 60.0
SEARCH_ID, NUMBER, STATUS, WHY = "search.id", "search.trial", "search.status", "search.why"
STATUSES: Mapping[TrialStatus, RunStatus] = {"finished": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}


class SearchRuns:
    """Writes to MLflow in a thread of its own; what MLflow does not take now is brought there at the end.

    Args:
        ledger: of the search.
        uri: of MLflow.
        note: told once that MLflow takes nothing.
    """

    def __init__(self, ledger: Ledger, name: str, uri: str, note: Callable[[str], None]) -> None:
        self._ledger, self._name, self._uri, self._note = ledger, name, uri, note
        self._experiment = ledger.search.experiment
        self.parent = self._opened()
        self._uploaded: dict[int, int] = {}
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._told = False
        self._thread = threading.Thread(target=self._serve, name="search-search_runs", daemon=True)
        self._thread.start()

    def touch(self, number: int) -> None:
        """Bring a trial up to date, soon."""
        self._queue.put(number)

    def rest(self) -> None:
        """Wait until the thread has done what it was told, and end it; a server that hangs is not waited for."""
        self._queue.put(None)
        self._thread.join(RESTS_WITHIN_S)

    def bring_all(self) -> None:
        """Bring all trials up to date, now.

        Raises:
            Away: if MLflow does not answer.
            RunFailed: if it refuses.
        """
        prepare(self._uri)
        for number in self._ledger.numbers():
            self._bring(number)

    def tag(self, tags: Mapping[str, str], number: int | None = None) -> None:
        """Tag the search's run, or that of a trial."""
        run_id = self.parent if number is None else self._ledger.trial(number).tracking_run
        assert run_id is not None
        with asking(self._uri):
            set_tags(self._uri, run_id, tags)

    def attach(self, files: Mapping[str, bytes]) -> None:
        """Put files into the search's run."""
        tracker = MlflowTracker(self._uri, self.parent)
        with tempfile.TemporaryDirectory() as scratch, asking(self._uri):
            for name, data in files.items():
                path = Path(scratch) / name
                path.write_bytes(data)
                tracker.log_artifact(path)

    def _opened(self) -> str:
        """The search's run: the one that it has, marked as running, or a new one."""
        header = self._ledger.header
        mine = {SEARCH_ID: header.id, NUMBER: "none"}
        with asking(self._uri):
            found = find_tagged(self._uri, self._experiment.name, mine)
            if found is not None:
                reopen_run(self._uri, found)
                return found
            params = flatten({"search": self._ledger.search.model_dump(mode="json", exclude={"experiment"})})
            params |= flatten(self._experiment.model_dump(mode="json"))
            tags = dict(header.tags) | mine | {"source.fingerprint": header.fingerprint}
            run_id = create_run(self._uri, self._experiment.name, self._name, params, tags)
            MlflowTracker(self._uri, run_id).log_text(self._experiment.to_json(), "experiment.json")
            return run_id

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
        folder = RunFolder(trial.name, run).reread()
        mine = {SEARCH_ID: self._ledger.header.id, NUMBER: str(number)}
        with asking(self._uri):
            if folder.tracking_run is None or not is_there(self._uri, folder.tracking_run):
                folder = self._tracked(folder, mine, number)
            tracked = folder.tracking_run
            assert tracked is not None
            done = self._uploaded.get(number, -1)
            fresh = [metric for metric in self._ledger.journal(number) if metric.step > done]
            log_metrics(self._uri, tracked, fresh)
            self._uploaded[number] = max((metric.step for metric in fresh), default=done)
            set_tags(self._uri, tracked, _tags(trial))
            if trial.status == "failed" and run.exists(FAILURE):
                MlflowTracker(self._uri, tracked).log_text(run.read(FAILURE).decode(), FAILURE)
        if trial.status in ENDED:
            finish_run(self._uri, tracked, STATUSES[trial.status])

    def _tracked(self, folder: RunFolder, mine: Mapping[str, str], number: int) -> RunFolder:
        """The trial's folder with its MLflow run: one that a kill has kept from being written down, or a new one."""
        header, entry = self._ledger.header, self._ledger.entry(number)
        experiment, origin = entry.experiment, entry.origin
        tags: dict[str, Any] = {
            **header.tags,
            **mine,
            PARENT: self.parent,
            "source.fingerprint": entry.fingerprint,
            "protocol": experiment.protocol,
        }
        if origin is not None:
            tags["search.origin"] = f"{trial_name(origin.trial)} after step {origin.step}"
        found = find_tagged(self._uri, experiment.name, mine)
        folder = replace(folder, tags=tags, tracking_run=found, fingerprint=entry.fingerprint)
        if found is not None:
            record_run(folder, experiment, found, tags)
        return open_tracking(folder, experiment, self._uri)


def _was_swept(error: Exception) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)


def _tags(trial: Trial) -> dict[str, str]:
    return {STATUS: trial.status, WHY: trial.why} if trial.why else {STATUS: trial.status}
