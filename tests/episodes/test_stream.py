"""What a sampler actor computes, without a cluster; tests/training/test_trainer.py has the actors."""

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from metaray.data import SOURCES, ClassStore
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.stream import Sampler, actor_stream
from metaray.errors import InputError
from metaray.imports import dump_kind

SPEC = EpisodeSpec(ways=3, shots=1, queries=2)


@pytest.fixture
def sampler(tiny_source: ClassStore) -> Sampler:
    return Sampler(dump_kind(tiny_source, SOURCES), SPEC.model_dump(), seed=5, meta_batch_size=5)


def test_it_samples_the_share_of_a_rank(sampler: Sampler, tiny_source: ClassStore) -> None:
    for rank, indices in enumerate([[35, 36], [37, 38, 39]]):
        found = sampler.sample(7, rank, 2)
        direct = sample_meta_batch(tiny_source, SPEC, "meta-train", 5, indices)
        assert all(np.array_equal(a, b) for a, b in zip(astuple(found), astuple(direct), strict=True))


def test_ranks_together_have_the_whole_meta_batch(sampler: Sampler) -> None:
    whole = sampler.sample(2, 0, 1)
    parts = [sampler.sample(2, rank, 3) for rank in range(3)]
    assert np.array_equal(np.concatenate([p.query_x for p in parts]), whole.query_x)
    assert np.concatenate([p.index for p in parts]).tolist() == whole.index.tolist() == [10, 11, 12, 13, 14]


def test_a_wrong_source_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown source 'clas_store'. Did you mean 'class_store'"):
        Sampler({"kind": "clas_store"}, SPEC.model_dump(), 0, 4)


class FakeActor:
    """Stands for an actor handle: answers at once, and notes what it was asked."""

    def __init__(self, sampler: Sampler) -> None:
        self.asked: list[int] = []
        self._sampler = sampler

    @property
    def sample(self) -> "FakeActor":
        return self

    def remote(self, step: int, rank: int, world_size: int) -> MetaBatch:
        self.asked.append(step)
        return self._sampler.sample(step, rank, world_size)


@pytest.mark.parametrize("rank", [0, 1])
def test_samplers_are_asked_in_turn(rank: int, sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(ref: Any) -> Any:
        return ref

    monkeypatch.setattr("ray.get", get)
    actors = [FakeActor(sampler) for _ in range(2)]
    arrivals = list(actor_stream(actors, rank, 2, start=3, stop=9, depth=2))
    assert [a.step for a in arrivals] == [3, 4, 5, 6, 7, 8]
    assert actors[(3 + rank) % 2].asked == [3, 5, 7] and actors[(4 + rank) % 2].asked == [4, 6, 8]
    for arrival in arrivals:
        assert np.array_equal(arrival.batch.support_x, sampler.sample(arrival.step, rank, 2).support_x)
