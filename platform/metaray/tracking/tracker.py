"""Where the metrics and files of a run go: the interface, and the two trackers that need no server.

`metaray.tracking.mlflow_tracker` holds the one that writes to MLflow.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import final

from metaray.records.journal import Metric

__all__ = ["MemoryTracker", "Metric", "NullTracker", "Tracker"]


class Tracker(ABC):
    """Receives metrics and files. `log` never blocks its caller; `close` returns once everything is delivered.

    Attributes:
        problem: why metrics wait, while they do; None as long as they are taken.
    """

    problem: str | None = None

    @abstractmethod
    def log(self, metrics: Sequence[Metric]) -> None:
        """Take the metrics of one moment."""

    @abstractmethod
    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Store a file, or a whole folder under its own name, inside `folder` of the run's artifacts."""

    @abstractmethod
    def close(self) -> None:
        """Deliver what is still waiting.

        Raises:
            RunFailed: if something could not be delivered.
        """

    def log_text(self, text: str, name: str, folder: str = "") -> None:
        """Store `text` as the file `name` inside `folder`."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            self.log_artifact(path, folder)


@final
class NullTracker(Tracker):
    """Forgets everything."""

    def log(self, metrics: Sequence[Metric]) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@final
class MemoryTracker(Tracker):
    """Keeps everything in lists, for tests and notebooks.

    Attributes:
        metrics: in the order they were logged.
        artifacts: the bytes of each file, by its path inside the run's artifacts.
        closed: whether `close` was called.
    """

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.artifacts: dict[str, bytes] = {}
        self.closed = False

    def log(self, metrics: Sequence[Metric]) -> None:
        """Append `metrics`."""
        self.metrics.extend(metrics)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Read the file, or every file below the folder."""
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            self.artifacts[str(Path(folder) / file.relative_to(path.parent))] = file.read_bytes()

    def close(self) -> None:
        """Remember that nothing more will come."""
        self.closed = True

    def values(self, key: str) -> list[float]:
        """The values logged under `key`, in order."""
        return [metric.value for metric in self.metrics if metric.key == key]
