"""The forms of the inner learning rate."""

import json

import pytest

from metaray.algorithms import ALGORITHMS, MAML, MAMLPP, Algorithm
from metaray.algorithms.families.inner_lr import Schedule, rates, rates_by_step, with_part
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


OTHERS = sorted(kind for kind, cls in ALGORITHMS.items() if "inner_lr" in cls.model_fields and kind != "mamlpp")
NUMBERS = ("baseline", "baselinepp", "cavia")


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("inner_lr", [[0.1], (0.1, 0.2), []])
def test_one_rate_per_inner_step_is_for_mamlpp_alone(kind: str, inner_lr: object) -> None:
    right = "valid number" if kind in NUMBERS else r"one rate per inner step is MAML\+\+'s \(mamlpp\); give a number, "
    with pytest.raises(InputError, match=rf"^{kind}: inner_lr: [^;]*{right}.*\(got [\[(].*[\])]\)$"):
        ALGORITHMS[kind].parse({"inner_lr": inner_lr}, where=kind)


@pytest.mark.parametrize(
    ("inner_lr", "message"),
    [
        ([0.1, -0.2], r"^mamlpp: inner_lr.1: Input should be greater than or equal to 0 \(got -0.2\)$"),
        ([0.1, "fast"], "^mamlpp: inner_lr.1: .*valid number.*'fast'"),
        ([0.1, float("inf")], "^mamlpp: inner_lr.1: .*finite"),
        ([[0.1], 0.2], "^mamlpp: inner_lr.0: .*valid number"),
        ("fast", r"^mamlpp: inner_lr: Input should be a valid number[^;]*\(got 'fast'\)$"),
        ({"*": -1}, r"^mamlpp: inner_lr.\*: [^;]*greater than[^;]*\(got -1\)$"),
        ({"steps": [0]}, "^mamlpp: inner_lr.values is missing$"),
        ([0.1, 0.2, 0.3], "^mamlpp: inner_lr: 3 rates for 2 inner_steps$"),
        ([0.1], "^mamlpp: inner_lr: 1 rates for 2 inner_steps$"),
        ([], "^mamlpp: inner_lr: 0 rates for 2 inner_steps$"),
    ],
)
def test_wrong_rates_of_mamlpp(inner_lr: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MAMLPP.parse({"inner_lr": inner_lr, "inner_steps": 2}, where="mamlpp")


@pytest.mark.parametrize(
    "inner_lr", [0.3, {"*": 0.1, "head.*": 0.2}, {"steps": [0, 9], "values": [0.1, 0.2]}, [0.1, 0.05, 0.02]]
)
def test_every_form_of_mamlpp_round_trips(inner_lr: object) -> None:
    algorithm = MAMLPP.parse({"inner_lr": inner_lr, "inner_steps": 3}, where="mamlpp")
    text = json.dumps(dump_kind(algorithm, ALGORITHMS))
    assert json.loads(text)["inner_lr"] == inner_lr
    assert parse_kind(json.loads(text), ALGORITHMS, Algorithm, what="algorithm") == algorithm


def test_rates_by_step() -> None:
    assert rates_by_step(0.4, NAMES, 2) == {name: [0.4, 0.4] for name in NAMES}
    assert rates_by_step((0.4, 0.2), NAMES, 2) == {name: [0.4, 0.2] for name in NAMES}
    assert rates_by_step({"*": 0.1, "head.*": 0.2}, NAMES, 2)["head.weight"] == [0.2, 0.2]
    assert rates_by_step(Schedule(steps=(0, 1), values=(0.3, 0.1)), NAMES, 1) == {name: [0.3] for name in NAMES}


@pytest.mark.parametrize("inner_lr", [0.1, {"*": 0.1}, {"steps": [0], "values": [0.1]}, [0.1, 0.2], None])
def test_a_part_is_changed_in_a_copy(inner_lr: object) -> None:
    before = json.dumps(inner_lr)
    part = {"[": "1", "{": "values" if "steps" in before else "a.b"}.get(before[0], "a.b")
    assert with_part(inner_lr, part, 9) != inner_lr
    assert json.dumps(inner_lr) == before


@pytest.mark.parametrize("part", ["2", "-1", "1.0", "", "one", "\u00b2", "9" * 5000])
def test_rates_by_step_have_no_other_parts(part: str) -> None:
    with pytest.raises(InputError, match="inner_lr is one rate per inner step, 0 to 1: .* is none of them"):
        with_part([0.1, 0.2], part, 0.3)
