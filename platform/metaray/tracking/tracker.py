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
"""Where the trackers live that have names. A new one is its file and a line here; any other goes by its import path."""


class Tracker(ABC):
    """Takes a run's metrics and files to where people look at them.

    Metrics come from the run's journal, each once, in a thread of their own; what was not taken comes again. So a
    tracker may take its time, and raise where it is away: training goes on meanwhile, and nothing is lost.

    Attributes:
        kind: Its name on the command line; empty where it goes by its import path.
        title: Its name in sentences.
        problem: Why it takes nothing just now, where `begin` has found that out and the run goes on all the same.
    """

    kind: ClassVar[str] = ""
    title: ClassVar[str] = "the tracker"
    problem: str | None = None

    @classmethod
    def at(cls, uri: str | None) -> Self:
        """A new one.

        Args:
            uri: URI of the tracking server that the user named; None where none was named.

        Raises:
            InputError: If the URI is wrong, as far as that can be told at once.
        """
        return cls()

    def is_sure(self, experiment: Experiment, run: Run) -> bool:
        """Whether it is certain already that the run can be written there, so that nothing has to wait for it.

        Then it is neither loaded nor checked, and `begin` may leave its work to `open`.
        """
        return False

    def load(self) -> None:  # noqa: B027 - most have nothing to import
        """Import what it needs, which may take seconds; called in a thread beside other checks."""

    def check(self, experiment: Experiment, run: Run) -> None:  # noqa: B027 - most have nothing to check
        """Find out, in seconds and before anything is written, whether it can be used.

        Raises:
            InputError: If it can't; the message says why not, and what would be right.
        """

    @abstractmethod
    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        """Open the run's record there, or the one that it has already.

        Args:
            experiment: What is trained.
            run: Run whose record it is; it is held by this process.
            say: Function that is told what the user should know.
        """

    def open(self) -> None:  # noqa: B027 - most leave nothing to it
        """Do what `begin` has put off, if anything; called before anything is written, in any thread.

        Raises:
            Exception: Any, if that does not work now: it is called again.
        """

    @property
    def place(self) -> str:
        """The record that it writes to; what another one got before is sent again to a new one."""
        return self.name

    @property
    def name(self) -> str:
        """What tells it from all others: its kind, or its import path."""
        return self.kind or f"{type(self).__module__}:{type(self).__qualname__}"

    @abstractmethod
    def log(self, metrics: Sequence[Metric]) -> None:
        """Take metrics, in order of steps.

        Raises:
            Exception: Any, if it does not take them now: they come again.
        """

    def describe(self, facts: Mapping[str, str]) -> None:  # noqa: B027 - most keep nothing but metrics and files
        """Note what is known of a run once it has begun: how it is computed, and where its data are.

        Raises:
            Exception: Any, if it does not take them now: they come again. So do they whenever the run is taken up,
                perhaps changed.
        """

    @abstractmethod
    def log_file(self, path: Path, folder: str = "") -> None:
        """Store a file, or a folder under its own name, inside `folder` of the record."""

    def log_text(self, text: str, name: str) -> None:
        """Store `text` as the file `name`."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            self.log_file(path)

    def leave(self) -> None:  # noqa: B027 - most do nothing beside it
        """Training has ended, however it did: stop what went on beside it in this process."""

    @abstractmethod
    def end(self, ending: Ending, why: str = "") -> None:
        """Close the record: nothing comes after, unless the run goes on in another call.

        Args:
            ending: How the run ended.
            why: What a failed one said.
        """


@final
class MemoryTracker(Tracker):
    """Keeps everything in lists, for tests and notebooks.

    Attributes:
        metrics: Metrics in the order they were logged.
        files: The bytes of each file, by its path inside the record.
        facts: What was said of the run, by name.
        endings: How it was closed, each time.
    """

    kind, title = "memory", "the memory"

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.files: dict[str, bytes] = {}
        self.facts: dict[str, str] = {}
        self.endings: list[Ending] = []

    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None:
        """Nothing to open."""

    def log(self, metrics: Sequence[Metric]) -> None:
        """Append `metrics`."""
        self.metrics.extend(metrics)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Keep them."""
        self.facts.update(facts)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Read the file, or every file below the folder."""
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            self.files[str(Path(folder) / file.relative_to(path.parent))] = file.read_bytes()

    def end(self, ending: Ending, why: str = "") -> None:
        """Remember it."""
        self.endings.append(ending)

    def values(self, key: str) -> list[float]:
        """The values logged under `key`, in order."""
        return [metric.value for metric in self.metrics if metric.key == key]


def trackers_of(names: Sequence[str], uri: str | None) -> list[Tracker]:
    """The trackers that were asked for.

    Args:
        names: Names among `TRACKERS`, or import paths `module:Class` of others; "none", alone, stands for none at all.
        uri: URI of the tracking server, for those that have one.

    Raises:
        InputError: If there is none of that name, or it is none, or its URI is wrong.
    """
    if NONE in names and len(names) > 1:
        raise InputError(f"trackers {', '.join(names)}: none stands alone")
    return [tracker_of(name).at(uri) for name in dict.fromkeys(names) if name != NONE]


def tracker_of(name: str) -> type[Tracker]:
    """The class of a tracker.

    Args:
        name: One of `TRACKERS`, or the import path `module:Class` of another.

    Raises:
        InputError: If there is none of that name, or it is none.
    """
    if name not in TRACKERS and ":" not in name:
        raise unknown("tracker", name, [*TRACKERS, NONE, "module:Class"])
    found = resolve(TRACKERS.get(name, name), trust=[TRUST_ALL])
    if not (isinstance(found, type) and issubclass(found, Tracker)):
        raise InputError(f"tracker {name!r} is no subclass of metaray.tracking.tracker.Tracker")
    return found
