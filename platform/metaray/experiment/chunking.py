"""How a meta-batch is cut into chunks, and so how many workers can take part."""

from metaray.experiment.experiment import Experiment

DEVICE_TYPES = ("cpu", "cuda")
CHUNKS_BEFORE = 4
"""Chunks of a meta-batch on a GPU in runs of before an experiment could say how many workers may take part."""


def chunk_size_on(experiment: Experiment, device_type: str) -> int:
    """Episodes of a chunk on that type of device: all are mapped over at once.

    Without `chunk_size` the meta-batch is cut evenly for `most_workers`. Without that, too, a chunk is one episode on a
    CPU, and all of them on a GPU: there a quarter as a chunk was measured to take 2.4 times as long as the whole.
    """
    size = experiment.meta_batch_size
    if experiment.chunk_size is not None:
        return min(experiment.chunk_size, size)
    usual = size if device_type == "cpu" else 1
    return -(-size // min(experiment.most_workers or usual, size))


def chunk_sizes(experiment: Experiment) -> dict[str, int]:
    """The chunk size of an experiment on each of `DEVICE_TYPES`."""
    return {device_type: chunk_size_on(experiment, device_type) for device_type in DEVICE_TYPES}


def chunk_size_before(experiment: Experiment, device_type: str) -> int:
    """The chunk size of runs from before `chunk_size_on` was recorded."""
    if experiment.chunk_size is not None or device_type == "cpu":
        return chunk_size_on(experiment, device_type)
    return -(-experiment.meta_batch_size // CHUNKS_BEFORE)


def workers_at_most(experiment: Experiment, chunk_size: int) -> int:
    """The largest number of workers that can take part: each needs at least one chunk."""
    return -(-experiment.meta_batch_size // chunk_size)


def remedy_for(experiment: Experiment, workers: int) -> str:
    """The setting that lets this many workers, at least 2, take part."""
    size = experiment.meta_batch_size
    if workers > size:
        return f"raise meta_batch_size to {workers} or more"
    # The largest chunk of which there are still so many.
    largest = -(-size // (workers - 1)) - 1
    if experiment.chunk_size is not None:
        return f"set chunk_size={largest}"
    return f"set most_workers={workers_at_most(experiment, largest)}"
