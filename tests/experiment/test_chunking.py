"""How a meta-batch is cut, and what lets more workers take part."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.errors import InputError
from metaray.experiment.chunking import (
    chunk_size_before,
    chunk_size_on,
    chunk_sizes,
    remedy_for,
    workers_at_most,
)
from metaray.experiment.experiment import Experiment

MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize(
    ("changes", "cpu", "gpu"),
    [
        ({}, 1, 10),
        ({"most_workers": 1}, 10, 10),
        ({"most_workers": 3}, 4, 4),
        ({"most_workers": 10}, 1, 1),
        ({"most_workers": 99}, 1, 1),
        ({"chunk_size": 3}, 3, 3),
        ({"chunk_size": 99}, 10, 10),
    ],
)
def test_the_chunk_on_each_device(changes: dict[str, int], cpu: int, gpu: int, make_experiment: MakeExperiment) -> None:
    assert chunk_sizes(make_experiment(meta_batch_size=10, **changes)) == {"cpu": cpu, "cuda": gpu}


def test_it_is_cut_once_and_left_out_of_the_json(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match="most_workers=2 and chunk_size=3 both cut the meta-batch: give one"):
        make_experiment(most_workers=2, chunk_size=3)
    assert (
        "most_workers" not in make_experiment().to_json()
        and '"most_workers": 2' in (made := make_experiment(most_workers=2)).to_json()
    )
    assert Experiment.from_json(made.to_json()) == made
    assert make_experiment().every_field()["most_workers"] is None, "so that it can be set by name"


def test_runs_of_before_had_quarters_on_a_gpu(make_experiment: MakeExperiment) -> None:
    assert chunk_size_before(make_experiment(meta_batch_size=10), "cuda") == 3
    assert chunk_size_before(make_experiment(meta_batch_size=10), "cpu") == 1
    assert chunk_size_before(make_experiment(meta_batch_size=10, chunk_size=5), "cuda") == 5


@given(size=st.integers(1, 60), workers=st.integers(2, 70), cut=st.sampled_from(["most_workers", "chunk_size", None]))
def test_the_remedy_helps_and_no_smaller_one_does(
    size: int, workers: int, cut: str | None, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(
        meta_batch_size=size, **({cut: 1} if cut == "most_workers" else {cut: size} if cut else {})
    )
    field, _, value = remedy_for(experiment, workers).removeprefix("set ").partition("=")
    if workers > size:
        assert field == f"raise meta_batch_size to {workers} or more"
        return
    assert field == (cut or "most_workers")

    def most(number: int) -> int:
        changed = experiment.model_copy(update={field: number})
        return workers_at_most(changed, chunk_size_on(changed, "cuda"))

    assert most(int(value)) >= workers
    assert field == "most_workers" or most(int(value) + 1) < workers, "the largest chunk that will do"
