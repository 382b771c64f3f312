"""From a run's events to a tracker."""

from metaray.tracking.tracker import Metric, Tracker
from metaray.training.events import Event, Listener


class TrackingListener(Listener):
    """Logs the metrics of a run. Picklable as its tracker is, so it can be sent to rank 0.

    Args:
        tracker: where metrics go.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_event(self, event: Event) -> None:
        """Log a "metrics" event; the others are for displays."""
        if event.kind == "metrics":
            time_ms = round(event.time_s * 1000)
            self.tracker.log([Metric(key, value, event.step, time_ms) for key, value in event.values.items()])

    def close(self) -> None:
        """Deliver what waits."""
        self.tracker.close()
