"""What the device could do at most, its fastest matrix products and copies, and how much arithmetic a step needs."""

import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmarks.gpu.section import Setting
from metaray.episodes.episode import MetaBatch
from metaray.episodes.tensors import chunks
from metaray.experiment.experiment import Experiment
from metaray.training.outer_loop import context_of, initial_state

Arithmetic = Literal["float32", "TF32", "bfloat16"]
ARITHMETICS: tuple[Arithmetic, ...] = ("float32", "TF32", "bfloat16")
REPEATS = 7


def allow_tf32(allowed: bool) -> None:
    """Let products of float32 matrices round their operands to 10 bits, on a GPU; metaray itself never does."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def seconds_of(work: Callable[[], object], setting: Setting, *, repeats: int = REPEATS) -> float:
    """The median time of some work, after it was done twice to warm up."""
    taken = []
    for repeat in range(2 + repeats):
        setting.synchronize()
        started = time.perf_counter()
        work()
        setting.synchronize()
        if repeat >= 2:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def matmul_flops_per_s(arithmetic: Arithmetic, setting: Setting) -> float:
    """Of a large square product of random matrices."""
    size = 256 if setting.small else 8192
    dtype = torch.bfloat16 if arithmetic == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=setting.device).to(dtype) for _ in range(2))
    allow_tf32(arithmetic == "TF32")
    try:
        return 2 * size**3 / seconds_of(lambda: a @ b, setting)
    finally:
        allow_tf32(False)


def copy_bytes_per_s(setting: Setting) -> float:
    """Bytes read plus bytes written a second, from device memory to device memory."""
    count = 1 << (20 if setting.small else 30)
    source = torch.randn(count, device=setting.device)
    target = torch.empty_like(source)
    return 2 * 4 * count / seconds_of(lambda: target.copy_(source), setting)


def flops_of_an_episode(experiment: Experiment, setting: Setting, batch: MetaBatch) -> int:
    """Multiplications and additions of the meta-gradient of a batch's first episode, in products and convolutions."""
    state = initial_state(experiment, setting.device)
    context = context_of(experiment, state.network, training=True)
    (episode,) = next(chunks(batch, 1, setting.device, experiment.source, "meta-train"))
    with FlopCounterMode(display=False) as counter:
        experiment.algorithm.meta_gradient(state.meta, episode, context)
    return int(counter.get_total_flops())
