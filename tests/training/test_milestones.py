"""Where a run is recorded, judged, saved and stopped."""

from collections.abc import Callable

import pytest

from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.training import milestones
from metaray.training.milestones import Milestones


def at(holds: Callable[[int], bool]) -> list[int]:
    return [done for done in range(1, 13) if holds(done)]


def test_what_is_due_when(make_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milestones, "POINTS_A_CURVE", 4)
    evaluation = Evaluation(every=5, val_episodes=2, test_episodes=2)
    plan = Milestones(
        make_experiment(num_steps=12, evaluation=evaluation, checkpoint=Checkpoint(every=4)),
        until=7,
    )
    assert at(plan.is_last) == [12]
    assert at(plan.judges) == [5, 10, 12] and at(plan.saves) == [4, 5, 8, 10, 12]
    assert at(plan.records) == [3, 5, 6, 9, 10, 12] and at(plan.looks) == [4, 5, 7, 8, 10, 12]
    assert at(lambda done: plan.stops(done, asked=False)) == [7]
    assert at(lambda done: plan.stops(done, asked=True)) == list(range(1, 12)), "there is nothing to come back for"
    assert at(Milestones(make_experiment(num_steps=12, evaluation=Evaluation(every=0))).looks) == [12]
