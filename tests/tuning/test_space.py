"""The search space: domains, their text, grids and random draws."""

import math
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.errors import InputError
from metaray.tuning.space import (
    DOMAINS,
    FORMS,
    MAX_TEXT,
    Choice,
    Domain,
    LogRandInt,
    LogUniform,
    RandInt,
    Uniform,
    choice,
    lograndint,
    loguniform,
    parse_domain,
    parse_space,
    randint,
    uniform,
)

MAX_INT = 2**63 - 1

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
integers = st.integers(-MAX_INT, MAX_INT)
leaves = st.none() | st.booleans() | integers | finite | st.text(max_size=8)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
pair: dict[str, Any] = {"min_size": 2, "max_size": 2, "unique": True}
domains: st.SearchStrategy[Domain] = st.one_of(
    st.lists(finite, **pair).map(lambda ends: Uniform(*sorted(ends))),
    st.lists(positive, **pair).map(lambda ends: LogUniform(*sorted(ends))),
    st.lists(integers, **pair).map(lambda ends: RandInt(*sorted(ends))),
    st.lists(st.integers(1, MAX_INT), **pair).map(lambda ends: LogRandInt(*sorted(ends))),
    st.lists(st.integers(1, 60), **pair).map(lambda ends: LogRandInt(*sorted(ends))),
    st.lists(values, min_size=1, max_size=4, unique_by=lambda value: Choice((value,)).expression()).map(
        lambda some: Choice(tuple(some))
    ),
)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("uniform(0, 1)", uniform(0.0, 1.0)),
        ("uniform(-1.5, +2)", uniform(-1.5, 2)),
        (" loguniform(1e-3,1) ", loguniform(0.001, 1)),
        ("randint(-3, 4)", randint(-3, 4)),
        ("lograndint(1, 1_000)", lograndint(1, 1000)),
        ("choice(1,3,5)", choice(1, 3, 5)),
        ("choice('a', \"b\")", choice("a", "b")),
        ("choice(maml, reptile)", choice("maml", "reptile")),
        ("choice(true, null, false)", choice(True, None, False)),
        ("choice(True, None, False)", choice(True, None, False)),
        ("choice(none)", choice(None)),
        ("choice('true', 'none', loguniform)", choice("true", "none", "loguniform")),
        ("choice(1, 1.0, True, '1')", choice(1, 1.0, True, "1")),
        ('choice([0.1, 0.2], {"*": 0.1, "head.*": null})', choice([0.1, 0.2], {"*": 0.1, "head.*": None})),
        ("choice({'steps': [0, 5], 'values': [-1, -0.5]})", choice({"steps": [0, 5], "values": [-1, -0.5]})),
        ("choice(\n  1,\n  2,\n)", choice(1, 2)),
    ],
)
def test_expressions(text: str, domain: Domain) -> None:
    assert parse_domain(text) == domain


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        (uniform(0, 1), "uniform(0.0, 1.0)"),
        (loguniform(1e-3, 1), "loguniform(0.001, 1.0)"),
        (randint(0, 5), "randint(0, 5)"),
        (lograndint(1, 5), "lograndint(1, 5)"),
        (choice("it's", None, {"b": 1, "a": [True]}), "choice(\"it's\", None, {'a': [True], 'b': 1})"),
    ],
)
def test_expressions_are_canonical(domain: Domain, text: str) -> None:
    assert domain.expression() == text


@given(domains)
def test_an_expression_reads_as_its_domain(domain: Domain) -> None:
    found = parse_domain(domain.expression())
    assert found == domain and hash(found) == hash(domain) and found.expression() == domain.expression()


def bounds(domain: Any) -> tuple[Any, Any]:
    return domain.low, domain.high - 1 if isinstance(domain, RandInt | LogRandInt) else domain.high


def shown(some: list[Any]) -> list[str]:
    return [repr(value) for value in some]


@given(domains, st.integers(0, 2**32))
def test_samples_lie_inside_and_are_plain(domain: Domain, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for value in [domain.sample(rng) for _ in range(5)]:
        if isinstance(domain, Choice):
            assert repr(value) in shown(list(domain.values))
        else:
            low, high = bounds(domain)
            assert low <= value <= high and type(value) is (int if domain.finite else float)


@pytest.mark.parametrize(
    "domain", [uniform(-sys.float_info.max, sys.float_info.max), loguniform(5e-324, sys.float_info.max)]
)
@pytest.mark.parametrize("part", [0.0, 0.3, 1 - 2**-53])
def test_samples_of_the_widest_domains_are_finite(domain: Domain, part: float) -> None:
    class Fixed:
        def random(self) -> float:
            return part

    assert math.isfinite(domain.sample(Fixed()))  # type: ignore[arg-type]


def test_samples_spread_as_promised() -> None:
    rng = np.random.default_rng(0)
    logs = [math.log10(loguniform(1e-4, 1).sample(rng)) for _ in range(2000)]
    assert np.mean(logs) == pytest.approx(-2, abs=0.1)
    assert np.mean([uniform(2, 4).sample(rng) for _ in range(2000)]) == pytest.approx(3, abs=0.05)
    assert {randint(2, 5).sample(rng) for _ in range(200)} == {2, 3, 4}
    assert {choice("a", "b").sample(rng) for _ in range(50)} == {"a", "b"}
    ones = [lograndint(1, 4).sample(rng) for _ in range(2000)]
    assert set(ones) == {1, 2, 3} and ones.count(1) / 2000 == pytest.approx(0.5, abs=0.05)  # log 2 / log 4


@given(domains, st.integers(1, 20))
def test_grids_are_distinct_sorted_and_hold_both_ends(domain: Domain, points: int) -> None:
    grid = domain.grid(points)
    if isinstance(domain, Choice):
        assert shown(grid) == shown(domain.ends()) == shown(list(domain.values))
        return
    low, high = bounds(domain)
    assert 1 <= len(grid) <= points and grid == sorted(set(grid)) and low <= grid[0] and grid[-1] <= high
    assert domain.ends() == list(dict.fromkeys([low, high]))
    assert all(type(value) is (int if domain.finite else float) for value in grid)
    if points > 1:
        assert grid[0] == low and grid[-1] == high


@pytest.mark.parametrize(
    ("domain", "points", "grid"),
    [
        (uniform(0, 1), 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (uniform(0, 0.3), 4, [0.0, 0.1, 0.2, 0.3]),
        (uniform(-1, 2), 1, [0.5]),
        (loguniform(1e-3, 1), 4, [0.001, 0.01, 0.1, 1.0]),
        (loguniform(1e-2, 1), 1, [0.1]),
        (randint(0, 11), 3, [0, 5, 10]),
        (randint(0, 11), 1, [5]),
        (randint(3, 6), 7, [3, 4, 5]),
        (randint(3, 4), 1, [3]),
        (lograndint(1, 101), 3, [1, 10, 100]),
        (lograndint(1, 101), 1, [10]),
        (lograndint(1, 6), 5, [1, 2, 3, 4, 5]),
        (lograndint(1, 9), 7, [1, 2, 3, 4, 6, 8]),
        (choice("b", "a"), 1, ["b", "a"]),
    ],
)
def test_grids(domain: Domain, points: int, grid: list[Any]) -> None:
    assert domain.grid(points) == grid


def test_what_domains_say_of_themselves() -> None:
    some = [uniform(0, 1), loguniform(1, 2), randint(0, 4), lograndint(1, 4), choice(1, 2)]
    assert [domain.is_log for domain in some] == [False, True, False, True, False]
    assert [domain.size for domain in some] == [None, None, 4, 3, 2]
    assert [domain.finite for domain in some] == [False, False, True, True, True]
    assert list(DOMAINS) == [domain.expression().partition("(")[0] for domain in some]
    assert all(f"{name}(" in FORMS for name in DOMAINS)


def test_types_tell_choices_apart() -> None:
    assert len({choice(1), choice(1.0), choice(True), choice("1"), choice([1]), choice([True])}) == 6
    assert choice({"a": 1, "b": 2}) == choice({"b": 2, "a": 1})


def test_choices_are_nobody_elses() -> None:
    given_value = {"*": [0.1]}
    domain = choice(given_value)
    given_value["*"].append(1)
    domain.grid(1)[0]["*"].append(2)
    domain.sample(np.random.default_rng(0))["*"].append(3)
    assert domain.values == ({"*": [0.1]},)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uniform(1, 1)", r"uniform\(1, 1\): low must be below high"),
        ("uniform(2, 1.5)", r"uniform\(2, 1.5\): low must be below high"),
        ("uniform(0, 1e999)", r"uniform\(0, inf\): low and high must be finite"),
        ("uniform('a', 1)", r"uniform\('a', 1\): low and high must be numbers"),
        ("uniform(false, true)", r"uniform\(False, True\): low and high must be numbers"),
        ("uniform(0, 0x" + "f" * 5000 + ")", r"uniform\(0, a huge number\): low and high must be finite"),
        ("loguniform(0, 1)", r"loguniform\(0, 1\): low must be above 0"),
        ("loguniform(-1, 1)", r"loguniform\(-1, 1\): low must be above 0"),
        ("randint(0, 1.0)", r"randint\(0, 1.0\): low and high must be integers"),
        ("randint(false, 3)", r"randint\(False, 3\): low and high must be integers"),
        ("randint(3, 3)", r"randint\(3, 3\): low must be below high, which is excluded"),
        ("randint(0, 9223372036854775808)", "must fit 64 bits"),
        ("lograndint(0, 3)", r"lograndint\(0, 3\): low must be above 0"),
        ("uniform(1)", "takes two numbers, low and high, not 1"),
        ("randint()", "takes two numbers, low and high, not 0"),
        ("loguniform(1, 2, 3)", "takes two numbers, low and high, not 3"),
        ("choice()", "choice needs at least one value"),
        ("choice(1, 2, 1)", "choice of 3 values: 1 is there twice"),
        ("choice(true, True)", "choice of 2 values: True is there twice"),
        ("choice({'a': 1, 'b': 2}, {'b': 2, 'a': 1})", "is there twice"),
        ("choice(1e999)", r"choice\(inf\): must be a finite number"),
        ("choice([1e999])", r"choice\(\[inf\]\): must be a finite number"),
        ("choice(0x" + "f" * 5000 + ")", r"choice\(a huge number\): must be a finite number"),
        ("choice((1, 2))", r"choice\(\(1, 2\)\): must be"),
        ("choice({1, 2})", r"choice\(\{1, 2\}\): must be"),
        ("choice({1: 2})", r"choice\(\{1: 2\}\): must be"),
        ("choice(b'a')", r"choice\(b'a'\): must be"),
        ("choice(1+2j)", r"choice\(\(1\+2j\)\): must be"),
        ("choice(...)", r"choice\(Ellipsis\): must be"),
        ("choice(" + "[" * 30 + "]" * 30 + ")", "must be"),
        ("logunifrom(1e-3, 1)", "unknown domain 'logunifrom'. Did you mean 'loguniform'"),
        ("0.1", r"domain '0.1' is a single value; give it with --set, or write choice\(0.1, ...\)"),
        ("[0.1, 0.2]", "is a single value"),
        ("maml", "is a single value"),
        ("uniform", r"lacks its values; write uniform\(low, high\)"),
        ("", "cannot be read"),
        ("choice(1", r"'choice\(1' cannot be read; write uniform\(low, high\)"),
        ("choice(1) choice(2)", "cannot be read"),
        (r"choice('\d')", "cannot be read"),
        ("choice(is)", "text with odd characters in quotes"),
        ("choice(1\0)", "cannot be read"),
        ("choice('\ud800')", "cannot be read"),
        ("choice(second-order)", "nothing is computed"),
        ("uniform(low=0, high=1)", "the values by position"),
        ("choice(**{'a': 1})", "the values by position"),
        ("choice(*[1, 2])", "nothing is computed"),
        ("a.b(1)", r"write uniform\(low, high\)"),
    ],
)
def test_wrong_domains(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_domain(text)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("bad", [np.float32(1), "1", None, [1]])
def test_bounds_are_numbers(bad: Any) -> None:
    for kind in (Uniform, LogUniform, RandInt, LogRandInt):
        with pytest.raises(InputError, match="low and high must be"):
            kind(bad, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
def test_bounds_are_finite(bad: float) -> None:
    with pytest.raises(InputError, match="must be finite"):
        uniform(bad, 3)


def test_choices_come_as_a_tuple() -> None:
    with pytest.raises(InputError, match="at least one value"):
        Choice("abc")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"over {MAX_TEXT}"):
        choice(*range(100_000))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "__import__('os')",
        "loguniform(1e-3, __import__('os'))",
        "choice((lambda: 1)())",
        "choice(lambda: 1)",
        "choice(uniform(0, 1))",
        "choice(set())",
        "loguniform(1,10**9**9)",
        "10**9**9",
        "choice('a' * 10**9)",
        "choice([0] * 10**9)",
        "choice(x for x in [1])",
        "choice([x for x in [1]])",
        "choice(f'{1}')",
        "choice(a.b)",
        "choice([1][0])",
        "choice({**a})",
        "choice({[1]: 2})",
        "choice(a := 1)",
        "choice(1 if 1 else 2)",
        "choice(not 1)",
        "choice(1 < 2)",
        "choice.__class__(1)",
        "choice(1)(2)",
        "(lambda: choice(1))()",
        "choice('%d' % 1)",
        "import os",
        "choice(1); choice(2)",
    ],
)
def test_nothing_is_evaluated(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError):
        parse_domain(text)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("part", ["-", "(", "[", "{1:", "not ", "lambda:", "a.", "f(", "~", "1+", "a**", "'a' "])
@pytest.mark.parametrize("length", [MAX_TEXT - 20, 10 * MAX_TEXT])
def test_deep_and_long_texts_are_refused(part: str, length: int) -> None:
    many = part * (length // len(part))
    for text in (f"{many}1", f"choice({many}1)"):
        with pytest.raises(InputError) as caught:
            parse_domain(text)
        assert len(str(caught.value)) < 600


@given(
    st.text(max_size=30)
    | st.text("choicerandtuflm(),'\"[]{}:.-+*=1e \\", max_size=30).map(lambda text: f"choice({text})")
)
def test_any_text_is_a_domain_or_wrong_input(text: str) -> None:
    try:
        domain = parse_domain(text)
    except InputError:
        return
    assert parse_domain(domain.expression()) == domain


def test_a_space_is_read_in_order() -> None:
    space = parse_space(["model.width=choice(8, 16)", "algorithm.inner_lr=loguniform(1e-3,1)", "a.b=choice('x=1')"])
    assert list(space.items()) == [
        ("model.width", choice(8, 16)),
        ("algorithm.inner_lr", loguniform(1e-3, 1)),
        ("a.b", choice("x=1")),
    ]
    assert parse_space([]) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loguniform(1e-3,1)"], r"write it as key=domain, for instance algorithm.inner_lr='loguniform\(1e-3,1\)'"),
        (["=choice(1)"], "write it as key=domain"),
        (["a="], "--search 'a=': write it as key=domain"),
        (["choice('a=1')"], "write it as key=domain"),
        (["a b=choice(1)"], "write it as key=domain"),
        (["a=choice(1)", "a=choice(2)"], r"--search a is given twice: choice\(1\) and choice\(2\)"),
        (["a=uniform(1, 0)"], r"--search a: uniform\(1, 0\): low must be below high"),
        (["a=0.1"], "--search a: domain '0.1' is a single value"),
    ],
)
def test_wrong_spaces(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_space(settings)
