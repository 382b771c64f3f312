from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from metaray.distributed.trial_schedulers import AGAIN, EPISODES, VALUE, scheduler_of
from metaray.tuning.trial import Trial, TrialScore
from tests.tuning.small import make_search

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def search(make_experiment: Any, **fields: Any) -> Any:
    """Nine steps of 4 episodes each: ASHA's rungs are at 4, 12 and 36 episodes."""
    return make_search(make_experiment(num_steps=9), **fields)


def ended(number: int, *values: float) -> Trial:
    curve = tuple(TrialScore(step, 4 * step, value) for step, value in enumerate(values, start=1))
    return Trial(number, {}, 36, "finished", curve=curve)


class Stub:
    """As much of a Tune trial as schedulers look at."""

    def __init__(self, name: str) -> None:
        self.trial_id, self.status = name, "RUNNING"


class Reports:
    """Reports of new trials to a scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.trials = scheduler, {}

    def __call__(self, name: str, step: int, value: float, *, again: bool = False) -> str:
        if name not in self.trials:
            self.trials[name] = Stub(name)
            self.scheduler.on_trial_add(None, self.trials[name])
        result = {EPISODES: 4 * step, VALUE: value, AGAIN: again}
        return str(self.scheduler.on_trial_result(None, self.trials[name], result))


def test_asha_stops_at_its_rungs_what_is_not_among_the_best_third(make_experiment: Any) -> None:
    report = Reports(scheduler_of(search(make_experiment), []))
    assert report("a", 1, 0.5) == CONTINUE
    assert report("b", 1, 0.4) == STOP
    assert report("c", 1, 0.6) == CONTINUE
    assert report("c", 2, 0.1) == CONTINUE  # between the rungs
    assert report("a", 3, 0.7) == CONTINUE
    assert report("c", 3, 0.6) == STOP


def test_asha_never_stops_a_trial_that_is_at_its_end(make_experiment: Any) -> None:
    report = Reports(scheduler_of(search(make_experiment), []))
    assert [report("a", step, 0.5) for step in range(1, 10)] == [CONTINUE] * 9


def test_a_scheduler_knows_the_trials_that_ended_before_a_kill(make_experiment: Any) -> None:
    assert Reports(scheduler_of(search(make_experiment), []))("new", 1, 0.4) == CONTINUE
    assert Reports(scheduler_of(search(make_experiment), [ended(0, 0.5)]))("new", 1, 0.4) == STOP


def test_what_was_decided_before_a_kill_is_not_decided_again(make_experiment: Any) -> None:
    report = Reports(scheduler_of(search(make_experiment), [ended(0, 0.5)]))
    assert report("mine", 1, 0.4, again=True) == CONTINUE
    assert report("mine", 2, 0.4) == CONTINUE
    assert report("other", 1, 0.4) == STOP


def test_less_is_better_in_regression(make_waves: Any) -> None:
    report = Reports(scheduler_of(make_search(make_waves(num_steps=9)), [ended(0, 2.0)]))
    assert report("worse", 1, 3.0) == STOP
    assert report("better", 1, 1.0) == CONTINUE


def test_median_stopping_compares_with_the_means_of_the_others(make_experiment: Any) -> None:
    known = [ended(number, *[0.5 + 0.01 * number] * 9) for number in range(3)]
    report = Reports(scheduler_of(search(make_experiment, scheduler="median"), known))
    assert report("good", 2, 0.9) == CONTINUE
    assert report("bad", 2, 0.1) == STOP


def test_median_stopping_pauses_nobody(make_experiment: Any) -> None:
    report = Reports(scheduler_of(search(make_experiment, scheduler="median"), []))
    assert report("first", 2, 0.1) == CONTINUE


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_scheduler_all_go_on(make_experiment: Any, value: float) -> None:
    report = Reports(scheduler_of(search(make_experiment, scheduler="none"), [ended(0, 0.5)]))
    assert report("a", 1, value) == CONTINUE
