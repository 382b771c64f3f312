"""What is said of a first loss far above that of guessing."""

from collections.abc import Callable

import pytest

from metaray.algorithms import ProtoMAML, ProtoNet
from metaray.experiment.experiment import Experiment
from metaray.training.checks import first_loss
from metaray.training.checks.first_loss import doubts_of
from metaray.training.checks.preflight import preflight

MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize("algorithm", [ProtoNet(), ProtoMAML(inner_steps=0)])
def test_distances_that_are_taken_as_they_are(
    algorithm: ProtoNet | ProtoMAML, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_loss, "FAR", 0.001)
    (doubt,) = preflight(make_experiment(algorithm=algorithm))
    assert doubt.startswith("the first loss is ") and "where guessing has 1.1" in doubt
    assert f"{algorithm.kind} takes them as they are; algorithm.temperature=size" in doubt
    (doubt,) = doubts_of(make_experiment(algorithm=ProtoNet(temperature="size")), 99.0, 3)
    assert "temperature" not in doubt


def test_of_what_is_as_usual_nothing_is_said(make_experiment: MakeExperiment, make_waves: MakeExperiment) -> None:
    assert preflight(make_experiment()) == preflight(make_experiment(algorithm=ProtoNet())) == ()
    assert doubts_of(make_waves(), 1e9, 1) == ()


def test_other_algorithms_are_told_what_is_seen(make_experiment: MakeExperiment) -> None:
    (doubt,) = doubts_of(make_experiment(), 100.0, 3)
    assert doubt.endswith("maml on mlp begins with logits that are very large")
    assert doubts_of(make_experiment(), float("nan"), 3) == ()
