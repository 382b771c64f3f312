"""The forms of the inner learning rate."""

import json

import pytest

from metaray.algorithms import ALGORITHMS, MAML, Algorithm
from metaray.algorithms.inner_lr import Schedule, rates
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind

NAMES = ["body.0.weight", "body.0.bias", "head.weight"]


def test_a_number_is_for_all() -> None:
    assert rates(0.4, NAMES, 7) == dict.fromkeys(NAMES, 0.4)


@pytest.mark.parametrize(("step", "rate"), [(0, 1.0), (9, 1.0), (10, 0.5), (99, 0.5), (100, 0.1), (10**9, 0.1)])
def test_a_schedule_holds_until_its_next_step(step: int, rate: float) -> None:
    schedule = Schedule(steps=(0, 10, 100), values=(1.0, 0.5, 0.1))
    assert rates(schedule, NAMES, step) == dict.fromkeys(NAMES, rate)


def test_the_most_specific_pattern_decides() -> None:
    found = rates({"*": 0.1, "body.*": 0.2, "*.bias": 0.3, "body.0.bias": 0.4}, NAMES, 0)
    assert found == {"body.0.weight": 0.2, "body.0.bias": 0.4, "head.weight": 0.1}


@pytest.mark.parametrize("patterns", [{"head.*": 0.5, "*": 0.1}, {"*": 0.1, "head.*": 0.5}])
def test_the_order_of_patterns_is_of_no_consequence(patterns: dict[str, float]) -> None:
    # JSON objects have no order, and ours are written with sorted keys: "*" comes before everything.
    text = json.dumps(dump_kind(MAML(inner_lr=patterns), ALGORITHMS), sort_keys=True)
    again = parse_kind(json.loads(text), ALGORITHMS, Algorithm, what="algorithm")
    assert isinstance(again, MAML)
    assert rates(again.inner_lr, NAMES, 0) == rates(patterns, NAMES, 0)
    assert rates(patterns, NAMES, 0) == {"body.0.weight": 0.1, "body.0.bias": 0.1, "head.weight": 0.5}


def test_patterns_must_fit() -> None:
    with pytest.raises(InputError, match=r"'conv\*' fits no parameter. Parameters: body.0.weight, "):
        rates({"*": 0.1, "conv*": 0.2}, NAMES, 0)
    with pytest.raises(InputError, match="no inner_lr pattern fits parameter 'head.weight'; add one, for instance"):
        rates({"body.*": 0.1}, NAMES, 0)


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([0, 5], [0.1], "2 steps for 1 values"),
        ([1, 5], [0.1, 0.2], "must start at 0 and increase"),
        ([0, 5, 5], [0.1, 0.2, 0.3], "must start at 0 and increase"),
        ([], [], "must start at 0 and increase"),
        ([0], [-0.1], r"greater than or equal to 0"),
    ],
)
def test_wrong_schedules(steps: list[int], values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MAML.parse({"inner_lr": {"steps": steps, "values": values}}, where="maml")


@pytest.mark.parametrize("inner_lr", [0.3, {"*": 0.1, "head.*": 0.2}, {"steps": [0, 9], "values": [0.1, 0.2]}])
def test_every_form_round_trips(inner_lr: object) -> None:
    algorithm = MAML.parse({"inner_lr": inner_lr}, where="maml")
    tree = dump_kind(algorithm, ALGORITHMS)
    assert tree["inner_lr"] == inner_lr
    assert parse_kind(tree, ALGORITHMS, Algorithm, what="algorithm") == algorithm
