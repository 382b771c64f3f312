"""Trackers by name, and the one that needs no server."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.server import MlflowServer
from metaray.tracking.tracker import MemoryTracker, Metric, trackers_of

OWN = f"{MemoryTracker.__module__}:{MemoryTracker.__name__}"


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
    tracker.log_file(tmp_path / "one", "kept")
    tracker.log_file(tmp_path / "y.txt")
    tracker.log_text("a", "a.txt")
    tracker.end("finished")
    assert tracker.files == {"kept/one/deep/x.txt": b"x", "y.txt": b"y", "a.txt": b"a"}
    assert tracker.endings == ["finished"]


def test_by_name_or_import_path() -> None:
    assert trackers_of(["none"], None) == []
    (one,) = trackers_of(["mlflow", "mlflow"], "http://host:5000/")
    assert isinstance(one, MlflowTracker) and one.server == MlflowServer("http://host:5000")
    kinds = [tracker.kind for tracker in trackers_of(["mlflow", OWN], "http://host:5000")]
    assert kinds == ["mlflow", "memory"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mlfow"], "unknown tracker 'mlfow'. Did you mean 'mlflow'"),
        (["none", "mlflow"], "none stands alone"),
        (["metaray.tracking.tracker:Nobody"], "Nobody"),
        (["metaray.tracking.tracker:TRACKERS"], "no subclass of metaray.tracking.tracker.Tracker"),
        (["no_such_module:Tracker"], "cannot import 'no_such_module'"),
    ],
)
def test_what_is_no_tracker(names: Sequence[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trackers_of(names, None)


def test_a_malformed_uri_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="unknown scheme 'htp'"):
        trackers_of(["mlflow"], "htp://host")
