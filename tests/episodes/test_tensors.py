"""Meta-batches as chunks of tensors."""

import numpy as np
import pytest
import torch

from metaray.data import ClassStore
from metaray.data.draws import Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks

CPU = torch.device("cpu")
PREPROCESSING = ImagePreprocessing(height=16, width=16, mean=(0.5,), std=(0.25,))


class Normalised(ClassStore):
    """A store whose pixels are shifted and scaled."""

    @property
    def preprocessing(self) -> ImagePreprocessing:
        return PREPROCESSING


@pytest.fixture
def source(tiny_source: ClassStore) -> Normalised:
    return Normalised(path=tiny_source.path)


@pytest.fixture
def batch(tiny_source: ClassStore) -> MetaBatch:
    return sample_meta_batch(tiny_source, EpisodeSpec(ways=3, shots=1, queries=2), "meta-train", 0, range(5))


def test_single_episodes_have_no_leading_axis(batch: MetaBatch, source: ClassStore) -> None:
    found = [c for (c,) in chunks(batch, 1, CPU, source, "meta-train")]
    assert [c.support.x.shape for c in found] == [(3, 1, 16, 16)] * 5
    assert [c.query.y.shape for c in found] == [(6,)] * 5 and found[0].seed.shape == ()


@pytest.mark.parametrize(("size", "lengths"), [(2, [2, 2, 1]), (5, [5]), (8, [5])])
def test_the_last_chunk_may_be_smaller(batch: MetaBatch, source: ClassStore, size: int, lengths: list[int]) -> None:
    found = [c for (c,) in chunks(batch, size, CPU, source, "meta-train")]
    assert [len(c.support.x) for c in found] == [len(c.seed) for c in found] == lengths
    together = torch.cat([c.query.x for c in found])
    singles = torch.stack([c.query.x for (c,) in chunks(batch, 1, CPU, source, "meta-train")])
    assert torch.equal(together, singles)


def test_inputs_are_normalised_and_the_batch_is_left_alone(batch: MetaBatch, source: ClassStore) -> None:
    before = batch.stacks[0].task.support.x.copy()
    (chunk,) = next(chunks(batch, 2, CPU, source, "meta-train"))
    expected = (batch.stacks[0].task.support.x[:2].astype(np.float32) / 255 - 0.5) / 0.25
    assert chunk.support.x.dtype == torch.float32
    np.testing.assert_allclose(chunk.support.x.numpy(), expected, rtol=1e-6, atol=1e-6)
    chunk.support.x.zero_()
    chunk.support.y.zero_()
    assert np.array_equal(batch.stacks[0].task.support.x, before)
    assert batch.stacks[0].task.support.y[0].tolist() == [0, 1, 2]


def test_read_only_arrays_are_fine(batch: MetaBatch, source: ClassStore) -> None:
    # Ray hands out read-only views of its object store.
    (stacked,) = batch.stacks
    for array in (*stacked.task.support, *stacked.task.query, stacked.seed):
        array.flags.writeable = False
    assert len(list(chunks(batch, 1, CPU, source, "meta-train"))) == 5


def test_seeds_keep_their_bits(batch: MetaBatch, source: ClassStore) -> None:
    found = torch.stack([c.seed for (c,) in chunks(batch, 1, CPU, source, "meta-train")])
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy().view(np.uint64), batch.seed)


def test_each_chunk_has_aligned_storage_of_its_own(batch: MetaBatch, tiny_source: ClassStore) -> None:
    found = [c for (c,) in chunks(batch, 1, CPU, tiny_source, "meta-train")]
    tensors = [t for c in found for t in (c.support.x, c.query.x, c.support.y)]
    assert all(t.storage_offset() == 0 and t.data_ptr() % 64 == 0 for t in tensors)
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)


def test_classes_are_places_among_those_of_the_split(tiny_source: ClassStore) -> None:
    turned = ClassStore(path=tiny_source.path, rotations=True)
    counts: dict[Split, int] = {"meta-train": 12, "meta-test": 8}
    for split, count in counts.items():
        found = sample_meta_batch(turned, EpisodeSpec(ways=5, shots=1, queries=1), split, 0, range(40))
        places = torch.cat([c.classes for (c,) in chunks(found, 8, CPU, turned, split)])
        assert turned.num_classes(split) == 4 * count and places.shape == (40, 5)
        assert sorted(set(places.flatten().tolist())) == list(range(4 * count))
        ids = turned.class_ids(split)[places.numpy()]
        assert np.array_equal(ids, found.stacks[0].task.class_ids)
