"""Where a run's record goes besides its folder: the interface of trackers, and those there are."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, final

from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment
from metaray.imports import TRUST_ALL, resolve
from metaray.records.journal import Metric
from metaray.records.run import Run

__all__ = ["TRACKERS", "Ending", "MemoryTracker", "Metric", "Tracker", "tracker_of", "trackers_of"]

Ending = Literal["finished", "failed", "stopped"]

NONE = "none"

TRACKERS: Mapping[str, str] = {
    "mlflow": "metaray.tracking.mlflow_tracker:MlflowTracker",
    "tensorboard": "metaray.tracking.tensorboard_tracker:TensorBoardTracker",
}
"""Import paths of the trackers that have names. A new one is its file and a line here; others go by import path."""


class Tracker(ABC):
    """Sends a run's metrics and files to where people look at them, such as MLflow or TensorBoard.

    Metrics come from the run's journal, each once, in a thread of their own; those that were not accepted come again.
    So a tracker may be slow, and may raise if its server is away: training goes on meanwhile, and nothing is lost.

    Attributes:
        kind: Name of the tracker on the command line; empty if it is given by its import path.
        title: Name of the tracker in sentences.
        problem: Why the tracker accepts nothing at the moment, if `begin` found that out and the run continues all the
            same.
    """

    kind: ClassVar[str] = ""
    title: ClassVar[str] = "the tracker"
    problem: str | None = None

    @classmethod
    def at(cls, uri: str | None) -> Self:
        """Create a tracker.

        Args:
            uri: URI of the tracking server that the user named; None if none was named.

        Raises:
            InputError: If the URI is wrong, as far as that can be seen at once.
        """
        return cls()

    def is_sure(self, experiment: Experiment, run: Run) -> bool:
        """Whether it is already certain that the run can be tracked, so that nothing has to wait for the tracker.

        The tracker is then neither loaded nor checked, and `begin` may leave its work to `open`.
        """
        return False

    def load(self) -> None:  # noqa: B027 - most have nothing to import
        """Import what the tracker needs, which may take seconds; called in a thread beside other checks."""

    def check(self, experiment: Experiment, run: Run) -> None:  # noqa: B027 - most have nothing to check
        """Check, in seconds and before anything is written, that the tracker can be used.

        Raises:
            InputError: If it cannot; the message says why, and what would be right.
        """

    @abstractmethod
    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        """Create the tracker's record of the run, or open the existing one.

        Args:
            experiment: The experiment that is trained.
            run: The run, which this process holds.
            say: Function that is called with messages for the user.
        """

    def open(self) -> None:  # noqa: B027 - most leave nothing to it
        """Do the work that `begin` has put off; called before anything is written, in any thread.

        Raises:
            Exception: If that does not work now; `open` is then called again.
        """

    @property
    def place(self) -> str:
        """The record that the tracker writes to. A new record is sent everything that an earlier one got."""
        return self.name

    @property
    def name(self) -> str:
        """The unique name of the tracker: its kind, or its import path."""
        return self.kind or f"{type(self).__module__}:{type(self).__qualname__}"

    @abstractmethod
    def log(self, metrics: Sequence[Metric]) -> None:
        """Write metrics, which come in the order of steps.

        Raises:
            Exception: If the metrics cannot be written now; they come again.
        """

    def describe(self, facts: Mapping[str, str]) -> None:  # noqa: B027 - most keep nothing but metrics and files
        """Write facts that are known once a run has begun: how it is computed, and where its data are.

        Raises:
            Exception: If the facts cannot be written now. They come again, as they do whenever the run is resumed,
                perhaps changed.
        """

    @abstractmethod
    def log_file(self, path: Path, folder: str = "") -> None:
        """Store a file, or a folder under its own name, inside `folder` of the record."""

    def log_text(self, text: str, name: str) -> None:
        """Store `text` as the file `name` of the record."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            self.log_file(path)

    def leave(self) -> None:  # noqa: B027 - most do nothing beside it
        """Training has ended, in whatever way: stop what the tracker runs beside it in this process."""

    @abstractmethod
    def end(self, ending: Ending, why: str = "") -> None:
        """Close the record; nothing follows unless the run is resumed in another call.

        Args:
            ending: How the run ended.
            why: Error message of a failed run.
        """


@final
class MemoryTracker(Tracker):
    """A tracker that keeps everything in lists, for tests and notebooks.

    Attributes:
        metrics: Metrics in the order in which they were logged.
        files: Bytes of each file, by its path inside the record.
        facts: Facts about the run, by name.
        endings: Endings of the record, one for each time it was closed.
    """

    kind, title = "memory", "the memory"

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.files: dict[str, bytes] = {}
        self.facts: dict[str, str] = {}
        self.endings: list[Ending] = []

    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        """Do nothing: there is nothing to open."""

    def log(self, metrics: Sequence[Metric]) -> None:
        """Append the metrics to `metrics`."""
        self.metrics.extend(metrics)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Add the facts to `facts`."""
        self.facts.update(facts)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Read the file, or every file below the folder."""
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            self.files[str(Path(folder) / file.relative_to(path.parent))] = file.read_bytes()

    def end(self, ending: Ending, why: str = "") -> None:
        """Append the ending to `endings`."""
        self.endings.append(ending)

    def values(self, key: str) -> list[float]:
        """The values logged under `key`, in order."""
        return [metric.value for metric in self.metrics if metric.key == key]


def trackers_of(names: Sequence[str], uri: str | None) -> list[Tracker]:
    """Create the trackers with these names.

    Args:
        names: Names among `TRACKERS`, or import paths `module:Class`; "none", alone, stands for no tracker.
        uri: URI of the tracking server, for trackers that have one.

    Raises:
        InputError: If there is no tracker of that name, the class is not a tracker, or the URI is wrong.
    """
    if NONE in names and len(names) > 1:
        raise InputError(f"trackers {', '.join(names)}: none stands alone")
    return [tracker_of(name).at(uri) for name in dict.fromkeys(names) if name != NONE]


def tracker_of(name: str) -> type[Tracker]:
    """The class of a tracker with this name.

    Args:
        name: Name among `TRACKERS`, or the import path `module:Class` of a tracker.

    Raises:
        InputError: If there is no tracker of that name, or the class is not a tracker.
    """
    if name not in TRACKERS and ":" not in name:
        raise unknown("tracker", name, [*TRACKERS, NONE, "module:Class"])
    found = resolve(TRACKERS.get(name, name), trust=[TRUST_ALL])
    if not (isinstance(found, type) and issubclass(found, Tracker)):
        raise InputError(f"tracker {name!r} is no subclass of metaray.tracking.tracker.Tracker")
    return found
