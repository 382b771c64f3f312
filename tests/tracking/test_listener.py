"""Events become metrics, and problems notes."""

from metaray.errors import RunFailed
from metaray.records.events import Event, Fanout, Listener
from metaray.tracking.listener import TrackingListener
from metaray.tracking.tracker import MemoryTracker, Metric


class Ear(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_event(self, event: Event) -> None:
        assert event.kind == "note"
        self.notes.append(event.text)

    def close(self) -> None:
        raise AssertionError("the display belongs to others")


def test_metrics_pass_with_their_time_and_nothing_else_does() -> None:
    tracker = MemoryTracker()
    listener = TrackingListener(tracker, Fanout([]))
    listener.on_event(Event("step", 3, {"loss": 1.0}, 5.0))
    listener.on_event(Event("metrics", 4, {"train/loss": 0.5, "val/accuracy": 0.9}, 1700000000.123))
    listener.close()
    expected = [Metric("train/loss", 0.5, 4, 1700000000123), Metric("val/accuracy", 0.9, 4, 1700000000123)]
    assert tracker.metrics == expected
    assert tracker.closed


def test_each_absence_of_the_server_is_told_once() -> None:
    tracker, ear = MemoryTracker(), Ear()
    listener = TrackingListener(tracker, ear)
    for problem in (None, "away", "away", None, None, "away again"):
        tracker.problem = problem
        listener.on_event(Event("step", 0, {}, 0.0))
    assert ear.notes == [
        "away; metrics wait in the run's journal, and training goes on",
        "MLflow takes metrics again",
        "away again; metrics wait in the run's journal, and training goes on",
    ]


def test_what_is_left_at_the_end_is_no_failure_of_the_run() -> None:
    class Stuck(MemoryTracker):
        def close(self) -> None:
            raise RunFailed("3 metrics could not be delivered: away")

    ear = Ear()
    TrackingListener(Stuck(), ear).close()
    assert ear.notes == ["3 metrics could not be delivered: away; they are in the run's journal"]
