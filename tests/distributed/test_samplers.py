"""What a sampler actor computes, without a cluster; tests/distributed/test_trainer.py has the actors."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaray.data import SOURCES, ClassStore
from metaray.data.rows import are_rows
from metaray.data.task import same_examples
from metaray.distributed.samplers import Sampler, SamplingFailed, actor_stream, enter, require_same_data
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.errors import InputError
from metaray.imports import dump_kind

SPEC = EpisodeSpec(ways=3, shots=1, queries=2)


@pytest.fixture
def sampler(tiny_source: ClassStore) -> Sampler:
    return Sampler(dump_kind(tiny_source, SOURCES), tiny_source.fingerprint, SPEC.model_dump(), seed=5)


def same(a: MetaBatch, b: MetaBatch) -> bool:
    pairs = zip(a.stacks, b.stacks, strict=True)
    alike = all(same_examples(one.task, other.task) for one, other in pairs)
    return alike and a.index.tolist() == b.index.tolist() and a.seed.tolist() == b.seed.tolist()


@pytest.mark.parametrize(("start", "stop"), [(35, 37), (37, 40), (0, 1)])
def test_it_samples_what_it_is_asked_for(start: int, stop: int, sampler: Sampler, tiny_source: ClassStore) -> None:
    found = sampler.sample(start, stop)
    assert same(found, sample_meta_batch(tiny_source, SPEC, "meta-train", 5, range(start, stop)))
    assert same(found, sampler.sample(start, stop))


def test_shares_together_are_the_whole_meta_batch(sampler: Sampler) -> None:
    whole = sampler.sample(10, 15)
    parts = [sampler.sample(s.start, s.stop) for s in (share_of(2, 5, rank, 3) for rank in range(3))]
    assert np.array_equal(np.concatenate([p.stacks[0].task.query.x for p in parts]), whole.stacks[0].task.query.x)
    assert np.concatenate([p.index for p in parts]).tolist() == whole.index.tolist() == [10, 11, 12, 13, 14]


def test_a_wrong_source_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown source 'clas_store'. Did you mean 'class_store'"):
        Sampler({"kind": "clas_store"}, "", SPEC.model_dump(), 0)


def test_a_node_with_other_data_is_found_out(tiny_source: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    require_same_data(tiny_source, tiny_source.fingerprint)
    told = (
        f"node 10.0.0.7 holds other data than the driver's: .* {tiny_source.fingerprint[:12]}.* instead of 0123456789ab"
    )
    with pytest.raises(InputError, match=told):
        require_same_data(tiny_source, "0123456789abcdef")
    with pytest.raises(InputError, match=told):
        Sampler(dump_kind(tiny_source, SOURCES), "0123456789abcdef", SPEC.model_dump(), 0)


def test_relative_paths_mean_what_they_meant_to_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    enter(str(tmp_path / "none"))
    assert Path.cwd() == tmp_path
    enter(str(tmp_path / "folder"))
    assert Path.cwd() == tmp_path / "folder"


def test_what_a_source_raises_keeps_its_lines_on_the_way(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> MetaBatch:
        raise KeyError("no such class")

    monkeypatch.setattr("metaray.distributed.samplers.sample_meta_batch", broken)
    with pytest.raises(SamplingFailed) as caught:
        sampler.sample(4, 8)
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert str(arrived).startswith("sampling episodes 4 to 7: KeyError: 'no such class' (")
    assert "in broken" in arrived.told and arrived.traceback.startswith("Traceback")


class FakeActor:
    """Stands for an actor handle: answers at once, and notes what it was asked."""

    def __init__(self, sampler: Sampler) -> None:
        self.asked: list[tuple[int, int]] = []
        self._sampler = sampler

    @property
    def sample(self) -> "FakeActor":
        return self

    def remote(self, start: int, stop: int, rows: bool = False) -> MetaBatch:
        self.asked.append((start, stop))
        return self._sampler.sample(start, stop, rows)


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("rows", [False, True])
def test_samplers_are_asked_in_turn(
    rows: bool, rank: int, size: int, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(ref: Any) -> Any:
        return ref

    monkeypatch.setattr("ray.get", get)
    actors = [FakeActor(sampler) for _ in range(2)]
    share = partial(share_of, meta_batch_size=size, rank=rank, world_size=2)
    arrivals = list(actor_stream(actors, share, start=3, stop=9, depth=2, rows=rows))
    assert [a.step for a in arrivals] == [3, 4, 5, 6, 7, 8]
    for arrival in arrivals:
        indices = share(arrival.step)
        assert arrival.batch.index.tolist() == list(indices)
        assert same(arrival.batch, sampler.sample(indices.start, indices.stop, rows))
        assert are_rows(arrival.batch.stacks[0].task.query.x) is rows
    # Each step once, each sampler every other step.
    (first, second) = (actor.asked for actor in actors)
    assert sorted(first + second) == [(s.start, s.stop) for s in map(share, range(3, 9))]
    assert len(first) == len(second) == 3
