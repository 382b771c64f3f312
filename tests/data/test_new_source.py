"""docs/new_source.md is true: its source needs one file, trains, and its learners are adapted to new tables."""

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaray.config import replace
from metaray.data.source import Source
from metaray.errors import InputError
from metaray.experiment import Evaluation, Experiment

ROOT = Path(__file__).parents[2]
ASSAYS = 8
MEAN, SPREAD = np.array([300.0, 1.0, 2.0]), np.array([100.0, 2.0, 0.5])
"""Of the features in the table."""


def molecules(path: Path, count: int = 90) -> None:
    """Three features; what is active in an assay lies on one side of a plane of its own; a third is not measured."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, 3))
    active = x @ generator.standard_normal((3, ASSAYS)) > 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mw", "logp", "rings", *(f"a{i}" for i in range(ASSAYS))])
        for row, labels in zip(x, active, strict=True):
            known = generator.random(ASSAYS) > 0.3
            writer.writerow(
                [*(SPREAD * row + MEAN), *(int(one) if seen else "" for one, seen in zip(labels, known, strict=True))]
            )


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """The page's experiment, in a folder that holds the page's files."""
    source, recipe = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "new_source.md").read_text(), re.DOTALL)
    assert len(source.splitlines()) <= 80
    (tmp_path / "assays.py").write_text(source)
    (tmp_path / "assay_recipe.py").write_text(recipe)
    molecules(tmp_path / "assays.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("assays", "assay_recipe"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found: Experiment = __import__("assay_recipe").assays()
    return found


def test_it_trains_and_its_learner_takes_a_new_assay(experiment: Experiment, train: Callable[..., Any]) -> None:
    plan = replace(experiment.evaluation, every=0, val_episodes=20, test_episodes=20)
    report = train(replace(experiment, num_steps=40, meta_batch_size=4, evaluation=plan))
    result = report.result
    assert (
        result.quality == "auroc" and result.protocol == "5-shot, all other examples as queries, inductive batch norm"
    )
    assert result.meta_test.mean > 0.7 and result.nearest_neighbor is not None
    assert report.judged is not None and set(report.judged.group) == {"a6", "a7"}
    assert result.over_groups["auroc"].groups == 2 and "average_precision" in result.further
    generator = np.random.default_rng(1)
    x = generator.standard_normal((40, 3))
    y = (x @ np.array([1.0, -1.0, 0.5]) > 0).astype(int)
    raw = SPREAD * x + MEAN
    task = report.learner.adapt(raw[:20], y[:20])
    assert np.mean(task.predict(raw[20:]) == y[20:]) > 0.7 and task.predict_proba(raw[20:]).shape == (20, 2)
    torch.testing.assert_close(report.learner.inputs(raw), torch.from_numpy(x).float(), rtol=0.3, atol=0.3)


def test_what_it_lacks_is_refused(experiment: Experiment) -> None:
    episodes = replace(experiment.episodes, shots=60)
    with pytest.raises(InputError, match=r"assays.csv: assay 'a0' has \d+ molecules of one class; 70 are needed"):
        experiment.source.check("meta-train", episodes)
    with pytest.raises(InputError, match=r"episodes.ways: assays yields binary tasks, and these have 1 way"):
        replace(experiment, episodes=replace(episodes, ways=3), evaluation=Evaluation())
    with pytest.raises(InputError, match="algorithm baselinepp trains one classifier over all classes of meta-train"):
        replace(experiment, algorithm={"kind": "baselinepp"})


def test_a_source_of_an_older_interface_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Old.sample_task is of an older interface: .* see docs/new_source.md"):
        type("Old", (Source,), {"sample_task": lambda self, draws, split, *, ways, shots, queries: None})
    with pytest.raises(TypeError, match=r"Sized.target_size is of an older interface"):
        type("Sized", (Source,), {"target_size": property(lambda self: 1)})
