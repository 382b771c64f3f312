"""What a run and a search find out before anything of them is written."""

import torch

from metaray.experiment.experiment import Experiment
from metaray.records.storage import Storage
from metaray.training.checks.preflight import preflight


def writable_storage(root: str) -> Storage:
    """The storage of all runs.

    Raises:
        InputError: if nothing can be written there.
    """
    storage = Storage(root)
    storage.check_writable()
    return storage


def check_experiment(experiment: Experiment, device: torch.device, *, verify: bool) -> tuple[str, ...]:
    """Refuse data that is not what its fingerprint says, and whatever the preflight finds.

    Args:
        experiment: The experiment that is about to be trained.
        device: Where it will likely compute.
        verify: Whether to read stores whole even if this node has compared them before.

    Returns:
        What is allowed, but looks wrong, a sentence each.

    Raises:
        InputError: naming what is wrong.
    """
    if verify:
        experiment.source.verify()
    return preflight(experiment, device)
