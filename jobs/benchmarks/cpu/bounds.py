"""What this machine can do at most, one thread of it: by processor time, in the same turns as what is compared."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from jobs.benchmarks.cpu.cases import FULL
from jobs.benchmarks.cpu.runs import Job, Setting
from jobs.benchmarks.cpu.turns import Turn, alternated

SECTION = "bounds"

GEMM, COPY, LOOP = "GFLOP/s of a float32 matrix product", "GB/s of a copy", "million steps/s of a Python loop"
LARGE = 1536
"""Rows of a square matrix: three of them exceed no level-three cache, and no thread is kept waiting for memory."""
COPIED_BYTES = 1 << 28
ABOUT = f"""What one thread does at most, by its processor time: products of square matrices of {LARGE} rows, \
{COPIED_BYTES >> 20} MiB copied from memory to memory (read and written bytes count), and a Python loop that adds."""


def rate(work: Callable[[], object], amount: float, seconds: float = 0.2) -> float:
    """How much of something is done a second of processor time."""
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        work()
        count += 1
    return amount * count / (time.process_time() - started)


def matrix_product(size: int = LARGE, dtype: torch.dtype = torch.float32) -> Turn:
    """GFLOP/s of a square product, a multiplication and an addition each."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return lambda: rate(lambda: a @ b, 2 * size**3 / 1e9)


def copy(size_bytes: int = COPIED_BYTES) -> Turn:
    """GB read and written a second, in memory that no cache holds."""
    source = torch.ones(size_bytes // 4)
    target = torch.empty_like(source)
    return lambda: rate(lambda: target.copy_(source), 2 * size_bytes / 1e9)


def python_loop(steps: int = 100_000) -> Turn:
    """Million iterations a second of the plainest loop there is."""

    def loop() -> None:
        total = 0
        for number in range(steps):
            total += number

    return lambda: rate(loop, steps / 1e6)


def jobs(setting: Setting) -> Iterator[Job]:
    """A single one: the bounds against each other, and what one thread of each arithmetic reaches."""
    told = {"turns": setting.turns, "seconds": setting.seconds, "size": setting.size._asdict()}
    yield Job(SECTION, "one thread", partial(measured, setting), told)


def measured(setting: Setting) -> dict[str, Any]:
    """All of them, in alternating turns."""
    torch.set_num_threads(1)
    full = setting.size == FULL
    size = LARGE if full else 64
    turns = {
        GEMM: matrix_product(size),
        GEMM.replace("float32", "bfloat16"): matrix_product(size, torch.bfloat16),
        COPY: copy(COPIED_BYTES if full else 1 << 16),
        LOOP: python_loop(),
    }
    return {"rates": alternated(turns, turns=setting.turns, seconds=setting.seconds)}
