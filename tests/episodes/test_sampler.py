"""The sampler is a pure function, and shares cut the meta-batch without gap or overlap."""

import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metaray.data import ClassStore
from metaray.episodes.episode import Episode, EpisodeSpec, MetaBatch
from metaray.episodes.sampler import chunks_of, sample_episode, sample_meta_batch, share_of

SPEC = EpisodeSpec(ways=4, shots=2, queries=3)


def same(a: Episode | MetaBatch, b: Episode | MetaBatch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def arrays(found: Any) -> Iterator[Any]:
    """Everything in a record of records."""
    if isinstance(found, MetaBatch):
        found = found.stacks
    for part in found if isinstance(found, tuple) else ():
        yield from arrays(part)
    if not isinstance(found, tuple):
        yield found


def test_it_does_not_matter_what_was_sampled_before(tiny_source: ClassStore) -> None:
    indices = list(range(20))
    first = {i: sample_episode(tiny_source, SPEC, "meta-train", 7, i) for i in indices}
    random.Random(0).shuffle(indices)
    np.random.seed(3)  # noqa: NPY002 - global generators must be of no consequence
    random.seed(4)
    assert all(same(sample_episode(tiny_source, SPEC, "meta-train", 7, i), first[i]) for i in indices)


def test_threads_in_any_order_agree(tiny_source: ClassStore) -> None:
    indices = [5, 1, 4, 1, 0, 3, 2] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: sample_episode(tiny_source, SPEC, "meta-val", 1, i), indices))
    for index, episode in zip(indices, found, strict=True):
        assert same(episode, sample_episode(tiny_source, SPEC, "meta-val", 1, index))


def test_another_process_agrees(tiny_source: ClassStore) -> None:
    code = (
        "import pickle, sys\n"
        "from metaray.data import ClassStore\n"
        "from metaray.episodes.episode import EpisodeSpec\n"
        "from metaray.episodes.sampler import sample_meta_batch\n"
        f"source, spec = ClassStore(path={tiny_source.path!r}), EpisodeSpec(ways=4, shots=2, queries=3)\n"
        "sys.stdout.buffer.write(pickle.dumps(sample_meta_batch(source, spec, 'meta-train', 7, [11, 3])))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert same(pickle.loads(out), sample_meta_batch(tiny_source, SPEC, "meta-train", 7, [11, 3]))


def test_index_seed_and_split_each_change_the_episode(tiny_source: ClassStore) -> None:
    base = sample_episode(tiny_source, SPEC, "meta-val", 0, 0)
    for split, seed, index in (("meta-val", 0, 1), ("meta-val", 1, 0), ("meta-test", 0, 0)):
        other = sample_episode(tiny_source, SPEC, split, seed, index)  # type: ignore[arg-type]
        assert other.seed != base.seed
        assert not np.array_equal(other.task.support.x, base.task.support.x)


def test_seeds_of_episodes_are_their_own(tiny_source: ClassStore) -> None:
    batch = sample_meta_batch(tiny_source, SPEC, "meta-train", 0, range(200))
    assert len(set(batch.seed.tolist())) == 200
    assert batch.index.tolist() == list(range(200))


def test_arrays_are_compact_contiguous_and_labelled(tiny_source: ClassStore) -> None:
    batch = sample_meta_batch(tiny_source, SPEC, "meta-train", 0, [9, 2])
    assert len(batch) == 2 and batch.index.tolist() == [9, 2]
    (stacked,) = batch.stacks
    support, query, _ = stacked.task
    assert support.x.shape == (2, 8, 1, 16, 16) and query.x.shape == (2, 12, 1, 16, 16)
    assert support.x.dtype == query.x.dtype == np.uint8
    assert batch.seed.dtype == np.uint64 and support.y.dtype == query.y.dtype == np.int64
    assert all(array.flags.c_contiguous for array in arrays(batch))
    assert support.y.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 2
    assert query.y[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_classes_stay_in_their_split(tiny_source: ClassStore) -> None:
    batch = sample_meta_batch(tiny_source, SPEC, "meta-test", 0, range(50))
    assert set(batch.stacks[0].task.class_ids.reshape(-1).tolist()) == set(range(20, 28))
    assert all(len(set(row)) == SPEC.ways for row in batch.stacks[0].task.class_ids.tolist())


@given(count=st.integers(1, 10**6), world_size=st.integers(1, 80))
def test_chunks_are_shared_out_in_contiguous_runs(count: int, world_size: int) -> None:
    runs = [chunks_of(count, rank, world_size) for rank in range(world_size)]
    assert [runs[0].start, *(run.stop for run in runs)] == [*(run.start for run in runs), count]
    lengths = [len(run) for run in runs]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1 or world_size > count


@given(step=st.integers(0, 10**6), size=st.integers(1, 70), world_size=st.integers(1, 80), chunk_size=st.integers(1, 9))
def test_shares_partition_the_meta_batch(step: int, size: int, world_size: int, chunk_size: int) -> None:
    shares = [share_of(step, size, rank, world_size, chunk_size=chunk_size) for rank in range(world_size)]
    assert [i for share in shares for i in share] == list(range(step * size, (step + 1) * size))
    # Whole chunks, but for the last of the meta-batch; the numbers of chunks differ by at most one.
    chunks = [-(-len(share) // chunk_size) for share in shares]
    assert all((share.start - step * size) % chunk_size == 0 for share in shares if share)
    assert sum(chunks) == -(-size // chunk_size) and max(chunks) - min(chunks) <= 1
    assert [len(chunks_of(sum(chunks), rank, world_size)) for rank in range(world_size)] == chunks


def test_shares_by_hand() -> None:
    assert [share_of(2, 7, rank, 3, chunk_size=2) for rank in range(3)] == [range(14, 16), range(16, 18), range(18, 21)]
    assert share_of(3, 5) == range(15, 20) and share_of(0, 3, chunk_size=8) == range(3)


@given(size=st.integers(1, 12), world_size=st.integers(1, 12), chunk_size=st.integers(1, 4))
def test_consecutive_steps_never_share_an_episode(size: int, world_size: int, chunk_size: int) -> None:
    pairs = [(step, rank) for step in range(3) for rank in range(world_size)]
    seen = [i for step, rank in pairs for i in share_of(step, size, rank, world_size, chunk_size=chunk_size)]
    assert seen == list(range(3 * size))
