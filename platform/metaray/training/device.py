"""Choosing a device, and the settings that must be in place before the first kernel runs."""

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment


def choose_device(request: str = "auto") -> torch.device:
    """A device by name: "auto" takes a GPU where there is one.

    Raises:
        InputError: If the device asked for is not there.
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
    if device.type == "cpu":
        _keep_freed_memory()
    _set_kernels(experiment, device)


@contextmanager
def execution(experiment: Experiment, device: torch.device) -> Iterator[None]:
    """Within the block kernels run as in a run of the experiment; afterwards as this process had them.

    What malloc keeps stays as it is: that could not be put back.
    """
    threads = torch.get_num_threads()
    put_back = None if device.type == "cpu" else _gpu_kernels()
    try:
        _set_kernels(experiment, device)
        yield
    finally:
        torch.set_num_threads(threads)
        if put_back is not None:
            put_back()


def _set_kernels(experiment: Experiment, device: torch.device) -> None:
    torch.set_num_threads(experiment.threads_per_worker)
    if device.type == "cpu":
        return
    if device.index is not None:
        torch.cuda.set_device(device)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _gpu_kernels() -> Callable[[], None]:
    """Notes which of a GPU's kernels this process has chosen; called, it brings them back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    deterministic, benchmark, word = cudnn.deterministic, cudnn.benchmark, _float32_word()
    sides: dict[Any, str] = {cudnn: "allow_tf32", matmul: "allow_tf32"}
    try:
        found = [getattr(side, name) for side, name in sides.items()]
    except RuntimeError:  # torch does not answer in these terms who has set a precision in its newer ones
        sides = dict.fromkeys((matmul, cudnn.conv, cudnn.rnn), "fp32_precision")  # type: ignore[attr-defined]
        found = [getattr(side, name) for side, name in sides.items()]

    def put_back() -> None:
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        for (side, name), value in zip(sides.items(), found, strict=True):
            setattr(side, name, value)
        if word is not None and _float32_word() != word:  # "medium" says more than True
            torch.set_float32_matmul_precision(word)

    return put_back


def _float32_word() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # there is none where backends were told to differ
        return None


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
