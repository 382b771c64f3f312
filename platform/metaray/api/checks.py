"""What a run and a search find out before anything of them is written."""

import torch

from metaray.experiment.experiment import Experiment
from metaray.records.storage import Storage
from metaray.tracking.mlflow_tracker import asking, find_experiment
from metaray.tracking.server import prepare
from metaray.training.checks.preflight import preflight


def writable_storage(root: str) -> Storage:
    """The storage of all runs.

    Raises:
        InputError: if nothing can be written there.
    """
    storage = Storage(root)
    storage.check_writable()
    return storage


def check_experiment(experiment: Experiment, device: torch.device, *, verify: bool) -> None:
    """Refuse data that is not what its fingerprint says, and whatever the preflight finds.

    Args:
        experiment: The experiment that is about to be trained.
        device: Where it will likely compute.
        verify: Whether to read stores whole even if this node has compared them before.

    Raises:
        InputError: naming what is wrong.
    """
    if verify:
        experiment.source.verify()
    preflight(experiment, device)


def check_tracking(uri: str, experiment: str, *, needed: bool = True) -> None:
    """Refuse a tracking server that cannot be used, or that has no room for an experiment of that name.

    Args:
        uri: The tracking URI.
        experiment: The name of the MLflow experiment.
        needed: Whether it will be written to, or need only be there.

    Raises:
        InputError: saying why not; `Unreachable` if nothing answers there.
    """
    prepare(uri)
    if needed:
        with asking(uri):
            find_experiment(uri, experiment)
