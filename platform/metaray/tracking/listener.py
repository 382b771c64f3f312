"""From a run's events to a tracker."""

import time

from metaray.errors import RunFailed
from metaray.records.events import Event, Listener
from metaray.tracking.tracker import Metric, Tracker


class TrackingListener(Listener):
    """Logs the metrics of a run while it goes on, and says when they have to wait.

    What a tracker does not take is not lost: the run's journal had it before, and is uploaded when the run is done.

    Args:
        tracker: where metrics go.
        display: hears, once each time, that metrics wait, and that they do no more.
    """

    def __init__(self, tracker: Tracker, display: Listener) -> None:
        self.tracker, self._display = tracker, display
        self._told = False

    def on_event(self, event: Event) -> None:
        """Log a "metrics" event; the others are for displays."""
        if event.kind == "metrics":
            time_ms = round(event.time_s * 1000)
            self.tracker.log([Metric(key, value, event.step, time_ms) for key, value in event.values.items()])
        self._tell()

    def close(self) -> None:
        """Deliver what waits, if that takes no more than some seconds."""
        try:
            self.tracker.close()
        except RunFailed as error:
            if not self._told:
                self._say(f"{error}; they are in the run's journal")

    def _tell(self) -> None:
        problem = self.tracker.problem
        if self._told == (problem is not None):
            return
        self._told = problem is not None
        self._say(
            f"{problem}; metrics wait in the run's journal, and training goes on"
            if problem
            else "MLflow takes metrics again"
        )

    def _say(self, text: str) -> None:
        self._display.on_event(Event("note", 0, {}, time.time(), text))
