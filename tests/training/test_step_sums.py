"""Sums over steps."""

import json

import pytest

from metaray.training.outer_loop import Step
from metaray.training.step_sums import StepSums


def step(number: int, *, loss: float = 0.1, wait_s: float = 0.25) -> Step:
    return Step(number, loss, 0.3, 1e-3, 2.0, wait_s, 0.5, stop=False)


def test_means() -> None:
    meter = StepSums()
    for number, loss in enumerate([1.0, 2.0, 6.0]):
        meter.count(step(number, loss=loss))
    assert meter.mean("loss") == 3 and meter.mean("gradient_norm") == 2 and meter.mean("score") == pytest.approx(0.3)
    assert meter.wait_share == 0.5 and meter.steps_per_s == 2


def test_nothing_counted() -> None:
    meter = StepSums()
    assert (meter.mean("loss"), meter.wait_share, meter.steps_per_s) == (0, 0, 0)


def test_it_goes_on_where_it_was_saved() -> None:
    """Through JSON, to the last bit: a sum that starts again from a mean would not be the same."""
    whole, first = StepSums(), StepSums()
    for number in range(7):
        whole.count(step(number, loss=0.1 * number))
        if number < 4:
            first.count(step(number, loss=0.1 * number))
    again = StepSums(json.loads(json.dumps(first.sums)))
    for number in range(4, 7):
        again.count(step(number, loss=0.1 * number))
    assert again.sums == whole.sums and again.mean("loss") == whole.mean("loss")


def test_what_others_keep_there_stays() -> None:
    assert StepSums({"seconds": 3.5}).sums["seconds"] == 3.5


def test_meters_share_nothing() -> None:
    sums = StepSums().sums
    StepSums(sums).count(step(0))
    assert sums == StepSums().sums
