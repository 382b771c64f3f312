"""Two learners on the same episodes, and what their difference says."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.algorithms import ProtoNet
from metaray.api.compare import Comparison, compare
from metaray.data.preprocessing import ImagePreprocessing
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.records.estimate import Estimate, paired_difference
from metaray.records.over_groups import GroupEstimate
from metaray.tasks import Regression
from metaray.training.evaluation import evaluate_learner
from tests.training.test_evaluation import learner_of

MakeExperiment = Callable[..., Experiment]
Command = Callable[..., Any]


@pytest.fixture
def first(trained: Any) -> Path:
    found: Path = trained.storage / "first" / "learner"
    return found


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a learner with changes."""

    def save(learner: Learner, name: str = "second", **changes: Any) -> Path:
        dataclasses.replace(learner, **changes).save(tmp_path / name)
        return tmp_path / name

    return save


def test_both_are_judged_on_the_same_episodes(
    first: Path, make_experiment: MakeExperiment, saved: Callable[..., Path], command: Command
) -> None:
    experiment = make_experiment(algorithm=ProtoNet(batch_norm="transductive"))
    second = saved(learner_of(experiment))  # says nothing of an experiment, and needs none
    code, out, err = command("compare", first, second, "--episodes", 8)
    assert (code, err) == (0, "")
    scores = [evaluate_learner(load_learner(one), make_experiment(), "meta-test") for one in (first, second)]
    difference = paired_difference(scores[1].score, scores[0].score)
    lines = out.splitlines()
    assert lines[:-1] == [
        f"protocol: {experiment.protocol}",
        f"meta-test accuracy of {first}: {scores[0].estimate}",
        f"meta-test accuracy of {second}: {scores[1].estimate}",
        f"difference, second - first: {difference.mean:+.4f} +- {difference.half_width:.4f} (8 episodes, paired)",
    ]
    tree = json.loads(command("compare", first, second, "--episodes", 8, "--json").out)
    assert tree["models"] == [str(first), str(second)] and tree["difference"] == difference._asdict()
    assert tree["verdict"] == lines[-1] and (tree["better"] is None) == lines[-1].startswith("neither")


def test_over_few_groups_the_difference_must_hold_for_groups() -> None:
    """Clear over 600 episodes, and not over the 7 patients that they are of."""
    scores, clear = (Estimate(60.0, 1.0, 600), Estimate(50.0, 1.0, 600)), Estimate(-10.0, 2.0, 600)
    found = Comparison(("a", "b"), "meta-test", ("5-shot", "5-shot"), "mse", scores, clear)
    assert found.better == "b"
    wide = dataclasses.replace(found, difference_over_groups=GroupEstimate(-9.0, 15.0, 7))
    assert wide.better is None
    assert wide.verdict == "neither is shown to be better: the interval of the difference over groups holds zero"
    assert "difference over groups, second - first: -9.0000 +- 15.0000 (7 groups)" in str(wide).splitlines()
    narrow = dataclasses.replace(found, difference_over_groups=GroupEstimate(-9.0, 5.0, 7))
    assert narrow.better == "b" and "the interval of the difference over groups lies below zero" in narrow.verdict
    alone = dataclasses.replace(found, difference_over_groups=GroupEstimate(-9.0, math.nan, 1))
    assert alone.better is None and alone.verdict.endswith("one group alone says nothing of others")


def test_one_with_itself(first: Path) -> None:
    found = compare(str(first), str(first), episodes=6, part="meta-val")
    assert found.difference == Estimate(0.0, 0.0, 6) and found.better is None
    assert found.verdict == "neither is shown to be better: the interval of the difference holds zero"


def test_each_takes_its_own_inner_steps_unless_they_are_set(first: Path, saved: Callable[..., Path]) -> None:
    second = saved(load_learner(first), inner_steps=0)
    found = compare(str(first), str(second), episodes=8, part="meta-test")
    assert found.protocols[1] == f"{found.protocols[0]}, 0 inner steps" and found.scores[0] != found.scores[1]
    assert f"protocol of {second}: {found.protocols[1]}" in str(found).splitlines()
    settings = ["evaluation.inner_steps=2"]
    alike = compare(str(first), str(second), episodes=8, part="meta-test", settings=settings)
    assert alike.scores[0] == alike.scores[1] and set(alike.protocols) == {f"{found.protocols[0]}, 2 inner steps"}


def test_a_second_that_is_for_other_tasks_is_refused(
    first: Path, make_experiment: MakeExperiment, make_waves: MakeExperiment, saved: Callable[..., Path]
) -> None:
    experiment = make_experiment()
    other = ImagePreprocessing(height=16, width=16, mean=(0.5,), std=(0.25,))
    four = make_experiment(episodes={"ways": 4, "shots": 1, "queries": 1})
    told: dict[str, Path] = {
        "the learner is 4-way, the evaluation 3-way": saved(learner_of(four), "four"),
        "the source prepares its inputs otherwise than the learner: mean.0 is": saved(
            learner_of(experiment), "other", preprocessing=other
        ),
        "the learner is for regression tasks of 1 value, the source yields classification tasks": saved(
            dataclasses.replace(learner_of(make_waves()), task=Regression()), "waves"
        ),
    }
    for message, second in told.items():
        with pytest.raises(InputError, match=f"{second} cannot be judged on the tasks of {first}: {message}"):
            compare(str(first), str(second), episodes=2, part="meta-test")
    four_way = str(told["the learner is 4-way, the evaluation 3-way"])
    with pytest.raises(InputError, match="four does not say which experiment it comes from, so it cannot be judged"):
        compare(four_way, str(first), episodes=2, part="meta-val")


@pytest.mark.parametrize(
    ("quality", "difference", "better", "verdict"),
    [
        ("accuracy", Estimate(0.1, 0.05, 9), "b", "b is better: the interval of the difference lies above zero"),
        ("accuracy", Estimate(-0.1, 0.05, 9), "a", "a is better: the interval of the difference lies below zero"),
        ("mse", Estimate(-0.1, 0.05, 9), "b", "b is better: .* lies below zero, and of mse less is better"),
        ("mse", Estimate(0.1, 0.05, 9), "a", "a is better: .* lies above zero, and of mse less is better"),
        ("accuracy", Estimate(0.1, 0.1, 9), None, "neither is shown to be better"),
        ("mse", Estimate(math.nan, math.nan, 9), None, "no verdict: a score is not finite"),
    ],
)
def test_the_verdict(quality: str, difference: Estimate, better: str | None, verdict: str) -> None:
    found = Comparison(("a", "b"), "meta-val", ("p", "p"), quality, (difference, difference), difference)
    assert found.better == better and re.match(verdict, found.verdict)
