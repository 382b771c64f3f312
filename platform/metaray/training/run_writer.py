"""What a run must not lose: rank 0 keeps checkpoints, metrics and results, whatever the storage does meanwhile."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from metaray.algorithms.context import Tensors
from metaray.errors import RunFailed
from metaray.phases import in_phase
from metaray.records.checkpoint import save_checkpoint
from metaray.records.checkpoint_files import Progress, keep_checkpoints, saved_steps, sweep
from metaray.records.events import Event, Listener
from metaray.records.journal import Journal, Metric
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training.recovery import WAIT_S, Failure, next_action


class RunWriter:
    """Writes a run's files, and tells the listener of metrics once they are on disk.

    Args:
        storage: Storage of the run; nobody else writes to it.
        listener: Listener of the run.
        damaged: Steps of checkpoints that are known not to be whole.
        alive: Called while it works or waits, for whoever watches over this rank.
        segments: Number of segments of the journal that were written before.
    """

    def __init__(
        self,
        storage: Storage,
        listener: Listener,
        damaged: Mapping[int, str],
        alive: Callable[[], None] = lambda: None,
        segments: int = 0,
    ) -> None:
        self._storage, self._listener, self._damaged, self._alive = storage, listener, set(damaged), alive
        self._failures: list[Failure] = []
        swept = sweep(storage)
        if swept:
            self._note(f"removed what broken-off writes had left behind: {', '.join(swept)}")
        self._journal = Journal(storage, segments)
        for damage in self._journal.damage:
            self._note(damage)
        self._tell(self._journal.entries)

    def record(self, values: Mapping[str, float], step: int) -> None:
        """Put metrics into the journal. A storage that takes none just now gets them later."""
        now_ms = time.time_ns() // 1_000_000
        self._journal.append([Metric(key, value, step, now_ms) for key, value in values.items()])
        try:
            self._flush()
        except OSError as error:
            self._note(f"metrics could not be written: {error}. They wait for the next time")

    @in_phase("checkpoint")
    def save(self, state: TrainState, progress: Progress, best: Tensors, *, needed: bool) -> None:
        """Write a checkpoint; where that fails, the next one tries again, unless this one is `needed`.

        Raises:
            RunFailed: If it is `needed` and could not be written.
        """

        def write() -> None:
            self._flush(now=True)
            save_checkpoint(self._storage, state, replace(progress, segments=self._journal.segments), best)

        if self._write(write, f"the checkpoint of step {state.step}", state.step, needed=needed):
            self._damaged.discard(state.step)
            self._retain(state.step, progress.best_step)
            self._listener.on_event(Event("checkpoint", state.step, {}, time.time()))

    def finish(self, folders: Mapping[str, Mapping[str, bytes]], files: Mapping[str, bytes], step: int) -> None:
        """Write what the run found out, the `files` after the `folders`.

        Raises:
            RunFailed: If that fails.
        """

        def write() -> None:
            self._flush(now=True)
            for folder, contents in folders.items():
                self._storage.write_folder(folder, contents)
            for name, data in files.items():
                self._storage.write(name, data)

        self._write(write, "the result", step, needed=True)

    def _write(self, action: Callable[[], None], what: str, step: int, *, needed: bool) -> bool:
        """Do it, as often as `next_action` says; returns whether it worked."""
        while True:
            self._alive()
            try:
                action()
                return True
            except OSError as error:
                self._failures.append(Failure("last checkpoint" if needed else "checkpoint", step, str(error)))
                problem = f"{what} could not be written: {error}"
            decision = next_action(self._failures)
            if decision == "go on":
                self._note(f"{problem}. Training goes on; the next checkpoint will try again")
                return False
            if decision == "raise":
                saved = self._saved()
                left = f"The newest checkpoint is that of step {saved[-1]}" if saved else "There is no checkpoint"
                raise RunFailed(f"{problem}. {left}")
            self._note(f"{problem}. Trying again in {WAIT_S:g} s")
            self._wait()

    def _wait(self) -> None:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            self._alive()
            time.sleep(min(1.0, WAIT_S))

    def _saved(self) -> list[int]:
        try:
            return saved_steps(self._storage)
        except OSError:
            return []  # this is about to be said of a storage that fails anyway

    def _retain(self, step: int, best_step: int | None) -> None:
        """Keep the newest, the whole one before it (should the newest be damaged one day), and the best.

        Newer ones that are whole would be another process's, which believes us dead: they are not ours to delete.
        """
        try:
            whole = [saved for saved in saved_steps(self._storage) if saved not in self._damaged]
            earlier, newer = [s for s in whole if s < step], [s for s in whole if s > step]
            best = [] if best_step is None else [best_step]
            keep_checkpoints(self._storage, [step, *earlier[-1:], *newer, *best])
        except OSError as error:
            self._note(f"an old checkpoint could not be deleted: {error}. The next checkpoint will try again")

    def _flush(self, *, now: bool = False) -> None:
        self._tell(self._journal.flush(now=now))

    def _tell(self, entries: list[Metric]) -> None:
        for key, value, step, time_ms in entries:
            self._listener.on_event(Event("metrics", step, {key: value}, time_ms / 1000))

    def _note(self, text: str) -> None:
        self._listener.on_event(Event("note", 0, {}, time.time(), text))
