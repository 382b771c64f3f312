"""Training in this process, without Ray."""

from collections.abc import Iterator
from dataclasses import dataclass

from metaray.data.source import SameData
from metaray.episodes.episode import MetaBatch
from metaray.episodes.prefetch import Arrival, threaded_stream
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.experiment.experiment import Experiment
from metaray.phases import in_phase
from metaray.records.begun import as_begun
from metaray.records.events import Listener
from metaray.records.storage import Storage
from metaray.training.device import choose_device, set_execution
from metaray.training.place import WHOLE, Extent, Place
from metaray.training.reduction import LocalReducer
from metaray.training.session import RankSetup, Session


@dataclass(frozen=True)
class InProcess(Place):
    """This process; a background thread samples the episodes.

    Attributes:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
    """

    device: str = "auto"

    def train(self, experiment: Experiment, storage: Storage, listener: Listener, extent: Extent = WHOLE) -> None:
        """Train here, as `Place` says."""
        device = choose_device(self.device)
        experiment = as_begun(experiment, storage, device.type)
        set_execution(experiment, device)

        def stream(start: int) -> Iterator[Arrival]:
            return sampled_here(experiment, start)

        try:
            rank = RankSetup(storage, LocalReducer(), device, listener, stream, extent)
            Session(experiment, rank).run()
        finally:
            listener.close()


def sampled_here(experiment: Experiment, start: int) -> Iterator[Arrival]:
    """The meta-batches of an experiment from step `start` on, each sampled while the one before is computed."""
    data = SameData(experiment.source)

    @in_phase("sampling episodes")
    def sample(step: int) -> MetaBatch:
        indices = share_of(step, experiment.meta_batch_size)
        found = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
        data.check()
        return found

    return threaded_stream(sample, start=start, stop=experiment.num_steps)
