"""What is settled of a run before its first step, and stays so whoever takes it up."""

from metaray.experiment.chunking import chunk_size_before, chunk_size_on
from metaray.experiment.experiment import Experiment
from metaray.records.run import RECORD_FILE, Run
from metaray.records.storage import Storage


def as_begun(experiment: Experiment, storage: Storage, device_type: str) -> Experiment:
    """The experiment with the chunks that its run has had on such devices since it was begun.

    The outer gradient is summed over chunks: other ones would be other bits. Records of before they were written down
    say nothing; then it is what was usual at that time.

    Args:
        experiment: Experiment of the run.
        storage: Storage of the run alone; it need not be begun.
        device_type: "cpu" or "cuda".
    """
    if not storage.exists(RECORD_FILE):
        return experiment
    known = Run(experiment.name, storage).record.chunk_sizes
    size = known.get(device_type) or chunk_size_before(experiment, device_type)
    if size == chunk_size_on(experiment, device_type):
        return experiment
    return experiment.model_copy(update={"chunk_size": size, "most_workers": None})
