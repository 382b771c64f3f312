"""The credit window: order, bound, end, errors and the measured wait."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.data import ClassStore
from metaray.data.task import Side, Task
from metaray.episodes.episode import Episode, EpisodeSpec, MetaBatch
from metaray.episodes.prefetch import credit_window, threaded_stream
from metaray.episodes.sampler import sample_meta_batch, share_of

Y = np.zeros((1, 1), np.int64)


def batch_of(step: int) -> MetaBatch:
    index = np.array([step])
    return MetaBatch((Episode(Task(Side(Y, Y), Side(Y, Y), Y), index, index.astype(np.uint64)),))


@given(start=st.integers(0, 20), count=st.integers(0, 20), depth=st.integers(1, 8))
def test_order_and_bound(start: int, count: int, depth: int) -> None:
    asked: list[int] = []
    received: list[int] = []
    most = 0

    def request(step: int) -> int:
        nonlocal most
        asked.append(step)
        most = max(most, len(asked) - len(received))
        return step

    def receive(step: int) -> MetaBatch:
        received.append(step)
        return batch_of(step)

    steps = []
    for arrival in credit_window(request, receive, start=start, stop=start + count, depth=depth):
        steps.append(arrival.step)
        assert arrival.batch.index.tolist() == [arrival.step] and arrival.wait_s >= 0
    assert steps == asked == received == list(range(start, start + count))
    assert most == min(depth, count)


def test_nothing_is_asked_ahead_of_its_credit() -> None:
    asked: list[int] = []

    def request(step: int) -> int:
        asked.append(step)
        return step

    window = credit_window(request, batch_of, start=0, stop=100, depth=3)
    assert asked == []
    for taken in range(5):
        next(window)
        assert asked == list(range(taken + 4))


def test_nothing_is_asked_from_the_stop_on() -> None:
    def request(step: int) -> int:
        raise AssertionError(f"step {step} was asked for")

    assert list(credit_window(request, batch_of, start=4, stop=4, depth=2)) == []


def test_the_wait_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slow(step: int) -> MetaBatch:
        now[0] += 3.0 if step == 1 else 0.0
        return batch_of(step)

    waits = [a.wait_s for a in credit_window(lambda step: step, slow, start=0, stop=3, depth=2)]
    assert waits == [0.0, 3.0, 0.0]


def test_an_error_of_the_sampler_arrives_at_its_step() -> None:
    def sample(step: int) -> MetaBatch:
        if step == 2:
            raise KeyError("no such episode")
        return batch_of(step)

    stream = threaded_stream(sample, start=0, stop=5)
    assert [next(stream).step, next(stream).step] == [0, 1]
    with pytest.raises(KeyError, match="no such episode"):
        next(stream)


def test_the_stream_equals_sampling_directly(tiny_source: ClassStore) -> None:
    spec = EpisodeSpec(ways=3, shots=1, queries=1)

    def sample(step: int) -> MetaBatch:
        return sample_meta_batch(tiny_source, spec, "meta-train", 0, share_of(step, 4, 0, 1))

    for arrival in threaded_stream(sample, start=2, stop=6):
        direct = sample(arrival.step)
        assert np.array_equal(arrival.batch.stacks[0].task.support.x, direct.stacks[0].task.support.x)
        assert arrival.batch.index.tolist() == list(range(arrival.step * 4, arrival.step * 4 + 4))


def test_a_stream_left_early_ends_its_thread() -> None:
    def sampling() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("sampler")]

    def first(stream: Iterator[object]) -> object:
        return next(stream)

    stream = threaded_stream(batch_of, start=0, stop=1000)
    first(stream)
    assert sampling()
    stream.close()
    assert not sampling()
