"""What jobs/benchmarks/sampling.py compares samples tasks of the same shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.benchmarks.fused_taskset import FusedTaskset
from jobs.benchmarks.sampling import CONTENDERS, FIVE_WAYS, OURS, Case, measured, synthetic, table
from metaray.config import replace
from metaray.data import FunctionFamily
from metaray.episodes.episode import EpisodeSpec, MetaBatch


@pytest.mark.parametrize("rotations", [False, True])
def test_the_stand_in_draws_classes_then_examples_of_each(rotations: bool) -> None:
    images = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(30, 1, 2, 2)  # class c holds the values 20 * c .. 20 * c + 19
    taskset = FusedTaskset(images, np.arange(6).repeat(5), ways=4, per_class=3, rotations=rotations)
    seen = set()
    for _ in range(20):
        x, y = taskset.sample()
        assert x.shape == (12, 1, 2, 2) and x.dtype == torch.uint8
        assert sorted(y.tolist()) == sorted([0, 1, 2, 3] * 3)
        for label in range(4):
            mine = x[y == label].flatten(1)
            assert len(set((mine[:, 0] // 20).tolist())) == 1, "of one class"
            assert len({tuple(sorted(image)) for image in mine.tolist()}) == 3, "different ones"
            seen.add(tuple((mine[0] - mine[0].min()).tolist()))
    assert len(seen) == (4 if rotations else 1)


def test_all_are_measured_on_the_same_tasks(tmp_path: Path) -> None:
    source = replace(synthetic(tmp_path, 30, 8), rotations=True)
    case = Case(source, FIVE_WAYS)
    batch, alone = (CONTENDERS[name](case).sample() for name in ("metaray", "metaray, one by one"))
    assert isinstance(batch, MetaBatch) and isinstance(alone, MetaBatch)
    (mine,), (theirs,) = batch.stacks, alone.stacks
    assert np.array_equal(mine.task.query.x, theirs.task.query.x) and len(batch) == 32
    bound = CONTENDERS["numpy, one gather (a bound)"](case).sample()
    assert isinstance(bound, tuple)
    sides, labels = bound
    assert [side.shape for side in sides] == [mine.task.support.x.shape, mine.task.query.x.shape]
    assert [side.shape for side in labels] == [mine.task.support.y.shape, mine.task.query.y.shape]
    found = measured(case, turns=1, seconds=0.001)
    assert found.keys() == CONTENDERS.keys()
    assert all(one["episodes_a_cpu_second"] > 0 for one in found.values())


@pytest.mark.parametrize("kind", ["values", "labels", "functions"])
def test_tables_and_functions_are_measured_alone(kind: str, tmp_path: Path) -> None:
    source = FunctionFamily() if kind == "functions" else table(tmp_path, 3, binary=kind == "labels")
    found = measured(Case(source, EpisodeSpec(shots=2, queries=3)), turns=1, seconds=0.001)
    assert found.keys() == OURS.keys()
    assert all(one["episodes_a_cpu_second"] > 0 for one in found.values())
