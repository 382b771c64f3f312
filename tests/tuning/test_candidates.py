"""Grids and random draws."""

import pytest

from metaray.errors import InputError
from metaray.tuning.candidates import combinations, count, draw, shuffled
from metaray.tuning.space import choice, lograndint, loguniform, parse_space, randint, uniform


def test_the_last_key_varies_fastest() -> None:
    found = combinations({"b": choice("x", "y"), "a": randint(0, 3)}, None)
    assert found == [{"b": b, "a": a} for b in ("x", "y") for a in (0, 1, 2)]
    assert list(found[0]) == ["b", "a"]
    assert combinations({"b": choice("x", "y"), "a": randint(0, 3)}, 6) == found
    assert combinations({"b": choice("x", "y"), "a": randint(0, 3)}, 60) == found
    assert combinations({}, None) == [{}]


def test_a_continuous_domain_gets_the_points_that_are_left() -> None:
    found = combinations({"lr": loguniform(0.01, 1), "n": choice(1, 2)}, 7)
    assert found == [{"lr": lr, "n": n} for lr in (0.01, 0.1, 1.0) for n in (1, 2)]
    assert combinations({"lr": loguniform(0.01, 1), "n": choice(1, 2)}, 3) == [{"lr": 0.1, "n": 1}, {"lr": 0.1, "n": 2}]


@pytest.mark.parametrize(
    ("settings", "trials", "message"),
    [
        (
            ["a=choice(1,2,3)", "b=randint(0,4)"],
            11,
            r"3 \(a\) x 4 \(b\) = 12 points; give --trials 12 or more, or leave",
        ),
        (["a=choice(1,2,3)"], 0, r"3 \(a\) = 3 points"),
        (["a=choice(1,2,3)", "b=uniform(0,4)"], None, r"continuous field b needs --trials: 3 \(a\) for each point"),
        (["a=choice(1,2,3)", "b=uniform(0,4)"], 2, r"3 \(a\) = 3 points; give --trials 3 or more, not 2"),
        (["b=uniform(0,4)"], 0, "give --trials 1 or more, not 0"),
        (["a=uniform(0,1)", "b=loguniform(1,4)"], 9, r"at most one continuous field, not a, b; .* as choice\("),
        (["a=randint(0,1000000000)", "b=randint(0,1000000000)"], None, "has 1000000000000000000 points, over"),
        (["a=uniform(0,1)"], 10**12, "has 1000000000000 points, over"),
    ],
)
def test_wrong_grids(settings: list[str], trials: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        combinations(parse_space(settings), trials)


def test_a_draw_is_a_function_of_seed_and_number() -> None:
    space = {"b": uniform(0, 1), "a": randint(0, 1000), "c": choice("x", "y")}
    turned = {key: space[key] for key in ("c", "a", "b")}
    draws = [draw(space, 3, number) for number in range(20)]
    assert draws == [draw(turned, 3, number) for number in range(20)]
    assert list(draws[0]) == ["b", "a", "c"]
    assert len({one["b"] for one in draws}) == 20
    assert draw(space, 4, 0) != draws[0] and draw(space, 0, 1) != draw(space, 2**32, 0)


def test_every_point_once_in_a_random_order() -> None:
    space = {"a": choice("x", [1], 1, True), "b": randint(3, 8), "c": lograndint(1, 4)}
    found = list(shuffled(space, 3, 0))
    assert count(space) == len(found) == 60 and len(set(map(repr, found))) == 60
    assert sorted(map(repr, found)) == sorted(map(repr, combinations(space, None)))
    assert found == list(shuffled(space, 3, 0)) != list(shuffled(space, 3, 1))
    assert list(shuffled(space, 4, 0)) != found != combinations(space, None)


def test_a_space_that_no_memory_holds() -> None:
    space = {"a": randint(0, 2**63 - 1), "b": lograndint(1, 2**63 - 1), "c": choice(1, 2)}
    first = [next(shuffled(space, 0, number)) for number in range(20)]
    assert len(set(map(repr, first))) == 20 and {one["c"] for one in first} == {1, 2}
    assert max(one["b"] for one in first) > 2**60 and count({**space, "d": uniform(0, 1)}) is None


def test_draws_stay_as_they_are() -> None:
    space = {"lr": loguniform(1e-3, 1), "n": randint(1, 100), "k": lograndint(1, 100), "m": choice("a", "b", None)}
    assert draw(space, 7, 3) == {"lr": pytest.approx(0.0015235406250252166, rel=1e-12), "n": 2, "k": 92, "m": "a"}


def test_values_are_nobody_elses() -> None:
    domain = choice({"*": [0.1]})
    combinations({"a": domain}, None)[0]["a"]["*"].append(4)
    assert domain.values == ({"*": [0.1]},)
