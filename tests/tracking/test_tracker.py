"""The trackers that need no server."""

import math
from pathlib import Path

from metaray.tracking.tracker import MemoryTracker, Metric, NullTracker


def test_memory_tracker_keeps_metrics_in_order() -> None:
    tracker = MemoryTracker()
    tracker.log([Metric("a", 1.0, 0, 10), Metric("b", 2.0, 0, 10)])
    tracker.log([Metric("a", 3.0, 1, 20)])
    assert tracker.values("a") == [1.0, 3.0]
    assert len(tracker.metrics) == 3


def test_memory_tracker_keeps_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "one" / "deep" / "x.txt").write_text("x")
    (tmp_path / "y.txt").write_text("y")
    tracker = MemoryTracker()
    tracker.log_artifact(tmp_path / "one", "kept")
    tracker.log_artifact(tmp_path / "y.txt")
    tracker.log_text("a", "a.txt", "text")
    assert tracker.artifacts == {
        "kept/one/deep/x.txt": b"x",
        "y.txt": b"y",
        "text/a.txt": b"a",
    }
    tracker.close()
    assert tracker.closed


def test_null_tracker_accepts_everything(tmp_path: Path) -> None:
    tracker = NullTracker()
    tracker.log([Metric("a", math.nan, 0, 0)])
    tracker.log_text("x", "x.txt")
    tracker.log_artifact(tmp_path)
    tracker.close()
