"""Where a run is trained, and how far: in this process or on a cluster, to its end or only to a step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from metaray.experiment.experiment import Experiment
from metaray.records.events import Listener
from metaray.records.storage import Storage


@dataclass(frozen=True)
class Extent:
    """How far a run is trained, and which of its steps are profiled.

    Attributes:
        until: Number of outer steps after which training stops, with a checkpoint; None trains to the end.
        judge: Whether to evaluate the run at its end; otherwise a later call, which has nothing left to train, does so.
        should_stop: Function that is called at each step; if it returns true, the run stops after a checkpoint.
        profile: Number of outer steps, after a warm-up, of which a profile is written to the storage.
    """

    until: int | None = None
    judge: bool = True
    should_stop: Callable[[], bool] = lambda: False
    profile: int = 0


WHOLE = Extent()


class Place(ABC):
    """Where a run is trained; its results do not depend on that."""

    @abstractmethod
    def train(self, experiment: Experiment, storage: Storage, listener: Listener, extent: Extent = WHOLE) -> None:
        """Train from the newest checkpoint in the storage, or from the start; the result is written to the storage.

        Args:
            experiment: The experiment to train.
            storage: Storage of the run, which only this call writes to meanwhile.
            listener: Listener that receives the events in this process; it is closed at the end.
            extent: How far to go.

        Raises:
            RunFailed: If the run ended itself, or failures came faster than checkpoints.
            RunStopped: If the extent asked it to stop; a checkpoint holds the state.
        """
