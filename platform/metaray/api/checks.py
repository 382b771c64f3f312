"""What a run and a search find out before anything of them is written."""

import torch

from metaray.data.preprocessing import EncodedPreprocessing
from metaray.episodes.resident import is_wanted
from metaray.experiment.chunking import workers_at_most
from metaray.experiment.experiment import Experiment
from metaray.models.frozen_body import has_frozen_encoder
from metaray.records.begun import as_begun
from metaray.records.events import Listener, entering
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.training.checks.preflight import check_chunks, check_shares, preflight
from metaray.training.device import choose_device
from metaray.training.outer_loop import chunk_size_of
from metaray.training.placement import Placement


def writable_storage(root: str) -> Storage:
    """Open the storage of all runs, after checking that it can be written.

    Raises:
        InputError: If nothing can be written there.
    """
    storage = Storage(root)
    storage.check_writable()
    return storage


def check_experiment(experiment: Experiment, device: torch.device, *, verify: bool) -> tuple[str, ...]:
    """Check an experiment before training: the data against their fingerprint, and the preflight.

    Args:
        experiment: The experiment that is about to be trained.
        device: Device that will probably be used.
        verify: Whether to read stores completely even if this node has compared them before.

    Returns:
        Warnings about settings that are allowed but look wrong, one sentence each.

    Raises:
        InputError: If something is wrong; the message names it.
    """
    if verify:
        experiment.source.verify()
    return preflight(experiment, device)


def likely_device(placement: Placement) -> torch.device:
    """The device that a run will probably use, as far as is known before it has joined a cluster."""
    if placement.in_process:
        return choose_device(placement.device)
    return torch.device("cuda" if placement.device == "cuda" else "cpu")


def check_workers(experiment: Experiment, placement: Placement, device: torch.device) -> None:
    """Find out what is wrong with the number of workers by itself, and with where the data are to be."""
    is_wanted(experiment.source, device.type, placement.data_on)
    if not placement.in_process:
        check_shares(experiment, placement.workers.most, device)


def most_in_words(experiment: Experiment, device: torch.device) -> str:
    """The largest number of workers that a run can use, in words that follow the run's name."""
    most = workers_at_most(experiment, chunk_size_of(experiment, device))
    return f" (at most {most} worker{'' if most == 1 else 's'}, each on a {'CPU' if device.type == 'cpu' else 'GPU'})"


def check_cluster(
    experiment: Experiment, placement: Placement, root: Storage, run: Run, display: Listener
) -> torch.device:
    """Check that the cluster has room, the device asked for, and nodes that reach the storage; returns the device."""
    # Only here, because a run in process needs no Ray at all.
    from metaray.distributed.cluster import connect, start_helpers, uses_gpu
    from metaray.distributed.cluster_nodes import check_storage_everywhere, samplers_on

    display.on_event(entering("Ray"))
    connect(placement)
    start_helpers()
    samplers_on(placement.samplers_on, use_gpu=uses_gpu(placement))
    check_storage_everywhere(root)
    device = torch.device("cuda" if uses_gpu(placement) else "cpu")
    experiment = as_begun(experiment, run.storage, device.type)
    check_workers(experiment, placement, device)
    if device != likely_device(placement):
        check_chunks(experiment, device)
    return device


def can_be_linked(experiment: Experiment) -> bool:
    """Whether the learner will have a frozen encoder, in its network or before it, that can be linked to."""
    return has_frozen_encoder(experiment.model) or isinstance(experiment.source.preprocessing, EncodedPreprocessing)
