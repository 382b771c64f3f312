"""Training in this process, without Ray."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from metaray.data.source import SameData
from metaray.episodes.episode import MetaBatch
from metaray.episodes.prefetch import Arrival, threaded_stream
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.experiment.experiment import Experiment
from metaray.records.events import Listener
from metaray.records.result import Result
from metaray.records.storage import Storage
from metaray.training.device import choose_device, set_execution
from metaray.training.reduction import LocalReducer
from metaray.training.session import RankSetup, run_session, train_session

T = TypeVar("T")


def train_in_process(
    experiment: Experiment,
    storage: Storage,
    listener: Listener,
    *,
    device: str = "auto",
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Run an experiment here, episodes sampled by a background thread.

    Raises:
        RunFailed: if the loss or gradient is not finite.
        RunStopped: if `should_stop` said so.
    """
    return _run(run_session, experiment, storage, listener, device=device, should_stop=should_stop)


def train_part_in_process(
    experiment: Experiment, storage: Storage, listener: Listener, *, device: str = "auto", until: int | None = None
) -> None:
    """Only train, up to `until` outer steps; `train_in_process` goes on from there, and concludes.

    Raises:
        RunFailed: if the loss or gradient is not finite.
        RunStopped: at `until`.
    """
    _run(train_session, experiment, storage, listener, device=device, until=until)


def _run(
    session: Callable[[Experiment, RankSetup], T],
    experiment: Experiment,
    storage: Storage,
    listener: Listener,
    *,
    device: str,
    should_stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
) -> T:
    place = choose_device(device)
    set_execution(experiment, place)
    size = experiment.meta_batch_size

    data = SameData(experiment.source)

    def sample(step: int) -> MetaBatch:
        indices = share_of(step, size)
        found = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
        data.check()
        return found

    def stream(start: int) -> Iterator[Arrival]:
        return threaded_stream(sample, start=start, stop=experiment.num_steps)

    rank = RankSetup(storage, LocalReducer(), place, listener, stream, should_stop, until)
    try:
        return session(experiment, rank)
    finally:
        listener.close()
