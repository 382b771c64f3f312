"""Training in this process, without Ray."""

from collections.abc import Iterator
from dataclasses import dataclass

from metaray.data.source import SameData
from metaray.episodes.episode import MetaBatch
from metaray.episodes.prefetch import Arrival, threaded_stream
from metaray.episodes.resident import bring_home
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
        data_on: "auto", "device" or "host", as a placement has it.
    """

    device: str = "auto"
    data_on: str = "auto"

    def train(self, experiment: Experiment, storage: Storage, listener: Listener, extent: Extent = WHOLE) -> None:
        """Train here, as `Place` says."""
        device = choose_device(self.device)
        experiment = as_begun(experiment, storage, device.type)
        set_execution(experiment, device)

        try:
            home = bring_home(experiment.source, device, self.data_on)
            rank = RankSetup(
                storage,
                LocalReducer(),
                device,
                listener,
                stream=lambda start: sampled_here(experiment, start, rows=home.on_device),
                extent=extent,
                notes=(home.note,) if home.note else (),
                data_on=home.place,
            )
            Session(experiment, rank).run()
        finally:
            listener.close()


def sampled_here(experiment: Experiment, start: int, *, rows: bool = False) -> Iterator[Arrival]:
    """The meta-batches of an experiment from step `start` on, each sampled while the one before is computed.

    Args:
        experiment: Experiment of the run.
        start: First step.
        rows: Episodes come as rows of the store.
    """
    data = SameData(experiment.source)

    @in_phase("sampling episodes")
    def sample(step: int) -> MetaBatch:
        indices = share_of(step, experiment.meta_batch_size)
        seed, spec = experiment.seed, experiment.episodes
        found = sample_meta_batch(experiment.source, spec, "meta-train", seed, indices, rows=rows)
        data.check()
        return found

    return threaded_stream(sample, start=start, stop=experiment.num_steps)
