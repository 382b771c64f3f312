"""The way from a run's journal to a tracker: each metric once, whatever happens to tracker, network or process."""

import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import final

from metaray.config import Config
from metaray.errors import InputError, redacted
from metaray.records.checked_json import read_record, write_record
from metaray.records.events import Event, Listener
from metaray.records.execution import read_executed
from metaray.records.journal import JournalReader
from metaray.records.run import Run
from metaray.retry import SHORTLY, retry
from metaray.tracking.client import summary
from metaray.tracking.tracker import Tracker

EVERY_S = 2.0
CLOSE_WITHIN_S = 10.0


class _Position(Config):
    """How far a tracker has the journal.

    Attributes:
        place: The tracker's record that has it.
        segments: Number of the journal's segments that it has.
    """

    place: str
    segments: int


@final
class JournalFeed:
    """Sends a run's journal to a tracker, and records in the run's folder how far it has got.

    Args:
        run: Run whose journal is sent; this process holds it.
        tracker: Tracker, after its `begin`.
        every_s: Seconds between two deliveries of the background thread.
    """

    def __init__(self, run: Run, tracker: Tracker, *, every_s: float | None = None) -> None:
        self.tracker = tracker
        self.problem = tracker.problem
        """Why metrics wait, while they do; None as long as they are taken."""
        self._run, self._every_s = run, EVERY_S if every_s is None else every_s
        self._reader = JournalReader(run.storage)
        self._file = f"fed-{re.sub(r'[^A-Za-z0-9]+', '-', tracker.name)}.json"
        self._taking = threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._described = False

    def send(self) -> bool:
        """Send everything that the tracker has not received yet; returns whether there was anything.

        Raises:
            Exception: If the tracker raises it.
        """
        with self._taking:
            self.tracker.open()
            self._describe()
            known = self._position()
            entries = self._reader.after(known)
            if not entries and self._reader.count <= known:
                return False
            self.tracker.log(entries)
            with suppress(OSError):  # then it is sent twice, which is better than not at all
                position = _Position(place=self.tracker.place, segments=self._reader.count)
                write_record(self._run.storage, self._file, position.model_dump())
            return True

    def _describe(self) -> None:
        """Tell, once, how the run is computed: that is written down before its first step."""
        if self._described:
            return
        try:
            found = read_executed(self._run.storage)
        except InputError:  # damaged: whoever trains says so
            return
        if found is not None:
            self.tracker.describe(found.tags)
            self._described = True

    def wake(self) -> None:
        """Tell the background thread that the journal has new metrics to send."""
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"feed-{self.tracker.name}", daemon=True)
            self._thread.start()

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Stop the background thread; metrics not sent within `within_s` seconds stay in the journal.

        If the tracker is just being opened, the seconds count from then on.
        """
        self._closing.set()
        self._news.set()
        if self._thread is not None:
            with suppress(Exception):  # the thread, which has tried it, too, tells what is wrong
                self.tracker.open()
            self._thread.join(within_s)
            if self._thread.is_alive():
                self.problem = f"{self.tracker.title} does not answer within {within_s:g} s"

    def _serve(self) -> None:
        while True:
            self._news.wait()
            closing = self._closing.wait(self._every_s)
            self._news.clear()
            self._attempt(SHORTLY if closing else ())
            if closing:
                return
            if self.problem:
                self._news.set()

    def _attempt(self, waits: Sequence[float]) -> None:
        """A problem is kept for others to tell: training must not stop for it."""
        try:
            if retry(self.send, on=Exception, waits=waits):
                self.problem = None  # a tracker that got nothing may still be away
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to, and a tracker may raise anything
            self.problem = redacted(summary(error))

    def _position(self) -> int:
        if not self._run.storage.exists(self._file):
            return 0
        try:
            found = read_record(self._run.storage, self._file, _Position, remedy="delete it")
        except (InputError, OSError):
            return 0
        return found.segments if found.place == self.tracker.place else 0


class FeedListener(Listener):
    """Wakes a feed when the journal has new metrics, and reports when metrics have to wait.

    Args:
        feed: Feed that sends the metrics to a tracker.
        display: Display that is told, once each time, that metrics wait, and that they no longer do.
    """

    def __init__(self, feed: JournalFeed, display: Listener) -> None:
        self._feed, self._display = feed, display
        self._told = False

    def on_event(self, event: Event) -> None:
        """Wake the feed at a "metrics" event; the others are for displays."""
        if event.kind == "metrics":
            self._feed.wake()
        self._tell()

    def close(self) -> None:
        """Deliver what waits, if that takes no more than some seconds."""
        self._feed.close()
        if self._feed.problem is not None and not self._told:
            self._say(f"{self._feed.problem}; metrics wait in the run's journal")

    def _tell(self) -> None:
        problem = self._feed.problem
        if self._told == (problem is not None):
            return
        self._told = problem is not None
        self._say(
            f"{problem}; metrics wait in the run's journal, and training goes on"
            if problem
            else f"{self._feed.tracker.title} takes metrics again"
        )

    def _say(self, text: str) -> None:
        self._display.on_event(Event("note", 0, {}, time.time(), text))
