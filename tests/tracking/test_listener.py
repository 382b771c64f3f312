"""Events become metrics."""

from metaray.tracking.listener import TrackingListener
from metaray.tracking.tracker import MemoryTracker, Metric
from metaray.training.events import Event


def test_metrics_pass_with_their_time_and_nothing_else_does() -> None:
    tracker = MemoryTracker()
    listener = TrackingListener(tracker)
    listener.on_event(Event("step", 3, {"loss": 1.0}, 5.0))
    listener.on_event(Event("metrics", 4, {"train/loss": 0.5, "val/accuracy": 0.9}, 1700000000.123))
    listener.close()
    expected = [Metric("train/loss", 0.5, 4, 1700000000123), Metric("val/accuracy", 0.9, 4, 1700000000123)]
    assert tracker.metrics == expected and tracker.closed
