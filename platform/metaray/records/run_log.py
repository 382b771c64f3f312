"""The log of a run: what it said, with the time, in its own folder; through Python's ordinary logging."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from metaray.errors import redacted
from metaray.records.events import ENDINGS, Event, Listener
from metaray.records.storage import Storage

LOG = "log.txt"
STEP_EVERY_S = 60.0

PACKAGE = logging.getLogger("metaray")
logger = logging.getLogger("metaray.run")


@contextmanager
def run_log(storage: Storage) -> Iterator[Listener]:
    """Within the block, what the package logs goes to the run's `log.txt` too; yields who logs the run's events.

    In object stores, which know no appending, the file is written at the block's end.
    """
    handler = _LogFile(storage)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S UTC")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    level = PACKAGE.level
    PACKAGE.addHandler(handler)
    PACKAGE.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield LogListener()
    finally:
        PACKAGE.setLevel(level)
        PACKAGE.removeHandler(handler)
        handler.close()


class LogListener(Listener):
    """Logs a run's events as they come; of steps the first one, and then one a minute."""

    def __init__(self) -> None:
        self._logged_s = -STEP_EVERY_S

    def on_event(self, event: Event) -> None:
        """Log an event."""
        if event.kind in ("metrics", "judging"):
            return  # the journal has the metrics
        if event.kind == "step":
            if time.monotonic() - self._logged_s < STEP_EVERY_S:
                return
            self._logged_s = time.monotonic()
        values = "  ".join(f"{key} {value:.6g}" for key, value in event.values.items() if key != "step")
        step = f"step {event.step}: "
        what = {"note": "", "phase": "phase: ", "step": step}.get(event.kind, f"{step}{event.kind} ")
        level = logging.ERROR if event.kind in ENDINGS else logging.INFO
        logger.log(level, "%s", redacted(f"{what}{event.text or values}"))

    def close(self) -> None:
        """Do nothing: no event is waiting."""


class _LogFile(logging.Handler):
    """Appends to the log; one that cannot be written must not end a run, nor fill its terminal."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage, self._waiting = storage, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line at once where that can be done, and keep it else."""
        line = f"{self.format(record)}\n"
        if not self._storage.is_local:
            self._waiting += line
            return
        path = self._storage.local_folder / LOG
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def close(self) -> None:
        """Write what was kept, after what the file holds already."""
        waiting, self._waiting = self._waiting, ""
        if waiting:
            with suppress(OSError):
                before = self._storage.read(LOG) if self._storage.exists(LOG) else b""
                self._storage.write(LOG, before + waiting.encode())
        super().close()
