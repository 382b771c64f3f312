"""What is settled of a run before its first step, and stays so whoever takes it up."""

from metaray.experiment.chunking import chunk_size_before, chunk_size_on
from metaray.experiment.experiment import Experiment
from metaray.records.run import RECORD_FILE, Run
from metaray.records.storage import Storage


def as_begun(experiment: Experiment, storage: Storage, device_type: str) -> Experiment:
    """The experiment with the chunk size that its run was begun with on this type of device.

    The outer gradient is summed over chunks, so another chunk size would give other bits. Records from before chunk
    sizes were written down imply the default of that time.

    Args:
        experiment: Experiment of the run.
        storage: Storage of the run, which need not have begun.
        device_type: Type of device, "cpu" or "cuda".
    """
    if not storage.exists(RECORD_FILE):
        return experiment
    known = Run(experiment.name, storage).record.chunk_sizes
    size = known.get(device_type) or chunk_size_before(experiment, device_type)
    if size == chunk_size_on(experiment, device_type):
        return experiment
    return experiment.model_copy(update={"chunk_size": size, "most_workers": None})
