"""Choosing a device, and the settings that must be in place before the first kernel runs."""

import ctypes
import platform

import torch

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment


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
    """Fix the threads of kernels as the experiment says; on a GPU, cuDNN's deterministic kernels and true float32."""
    torch.set_num_threads(experiment.threads_per_worker)
    if device.type == "cpu":
        _keep_freed_memory()
        return
    if device.index is not None:
        torch.cuda.set_device(device)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _keep_freed_memory() -> None:
    """Let malloc keep what tensors free, for the next step.

    By default glibc maps each large tensor anew and returns it at once, so that every step faults in the same memory
    page by page: on a 30-way Conv4 step that took a tenth of the time in the kernel, and a third of the wall time on
    a virtual machine.
    """
    if platform.libc_ver()[0] == "glibc":
        libc, trim_threshold, mmap_threshold = ctypes.CDLL(None), -1, -3  # the numbers of <malloc.h>
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
