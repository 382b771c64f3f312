"""Where a run is trained, and how far: in this process or on a cluster, to its end or only to a step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from metaray.experiment.experiment import Experiment
from metaray.records.events import Listener
from metaray.records.storage import Storage


@dataclass(frozen=True)
class Extent:
    """How far a run is trained, and how many of its steps are looked at.

    Attributes:
        until: Number of outer steps after which it stops, with a checkpoint; None goes on to the end.
        judge: Whether it is judged at the end; otherwise a later call, which has nothing left to train, does that.
        should_stop: Asked at each step; True stops the run after a checkpoint.
        profile: Number of outer steps, after a warm-up, of which a profile is left in the storage.
    """

    until: int | None = None
    judge: bool = True
    should_stop: Callable[[], bool] = lambda: False
    profile: int = 0


WHOLE = Extent()


class Place(ABC):
    """Where a run is trained. No bit of it depends on that."""

    @abstractmethod
    def train(self, experiment: Experiment, storage: Storage, listener: Listener, extent: Extent = WHOLE) -> None:
        """Train an experiment from the newest checkpoint in its storage, or from scratch; the result is left there.

        Args:
            experiment: What to train.
            storage: Storage of the run alone; only this call writes to it meanwhile.
            listener: Hears the events, in this process; it is closed at the end.
            extent: How far to go.

        Raises:
            RunFailed: If the run stopped itself, or failures came faster than checkpoints.
            RunStopped: If the extent said so; a checkpoint holds the state.
        """
