"""The credit window: episodes asked for ahead of their use, never more than `depth` at a time, always in order."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from metaray.episodes.episode import MetaBatch

Ref = TypeVar("Ref")


class Arrival(NamedTuple):
    """A rank's share of one meta-batch, and the seconds that its trainer waited for it."""

    step: int
    batch: MetaBatch
    wait_s: float


def credit_window(
    request: Callable[[int], Ref], receive: Callable[[Ref], MetaBatch], *, start: int, stop: int, depth: int
) -> Iterator[Arrival]:
    """Yield the batches of steps `start .. stop-1` in order, with up to `depth` requests in flight.

    The window limits the load: taking step s requests step s + depth.

    Args:
        request: Function that requests a step's batch and returns a reference at once.
        receive: Function that waits for a reference and returns the batch.
        start: First step.
        stop: Step after the last one.
        depth: Number of requests in flight, at least 1.
    """
    assert depth >= 1, depth
    window = deque(request(step) for step in range(start, min(start + depth, stop)))
    for step in range(start, stop):
        asked = time.perf_counter()
        batch = receive(window.popleft())
        wait_s = time.perf_counter() - asked
        if step + depth < stop:
            window.append(request(step + depth))
        yield Arrival(step, batch, wait_s)


def threaded_stream(
    sample: Callable[[int], MetaBatch], *, start: int, stop: int, depth: int = 2
) -> Generator[Arrival, None, None]:
    """Yield batches sampled by `sample(step)` in a background thread of this process, without Ray.

    Exceptions of `sample` are raised at their step. The thread ends with the stream; close the stream to leave early.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sampler")

    def request(step: int) -> Future[MetaBatch]:
        return pool.submit(sample, step)

    try:
        yield from credit_window(request, lambda future: future.result(), start=start, stop=stop, depth=depth)
    finally:
        pool.shutdown(cancel_futures=True)
