"""Choosing a device, and the settings that must be in place before the first kernel runs."""

import torch

from metaray.errors import InputError
from metaray.training.experiment import Experiment


def choose_device(request: str = "auto") -> torch.device:
    """A device by name: "auto" takes a GPU where there is one.

    Raises:
        InputError: if the device asked for is not there.
    """
    if request == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if request not in ("cpu", "cuda"):
        raise InputError(f"unknown device {request!r}; use auto, cpu or cuda")
    if request == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' asked for, but torch sees no GPU here; use --device cpu")
    return torch.device(request)


def set_execution(experiment: Experiment, device: torch.device) -> None:
    """Fix the threads of kernels, and deterministic kernels on a GPU, as the experiment says."""
    torch.set_num_threads(experiment.threads_per_worker)
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
