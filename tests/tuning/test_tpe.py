"""Proposals of Optuna's tree-structured Parzen estimators."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from metaray.experiment.experiment import Experiment
from metaray.tuning.search import INNER_LR, Search
from metaray.tuning.space import choice
from metaray.tuning.tpe import RANDOM_AT_MOST, propose
from metaray.tuning.trial import Trial, TrialScore, TrialStatus
from tests.tuning.small import LR, make_search

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def search(make_experiment: MakeExperiment) -> Search:
    """For the inner learning rate, in 30 trials; the objective is accuracy."""
    return make_search(make_experiment(), {INNER_LR: "loguniform(1e-4, 10)"}, searcher="tpe", trials=30)


def with_seed(search: Search, seed: int) -> Search:
    return Search.parse({**search.model_dump(mode="json"), "seed": seed}, where="test")


def curve(*values: float) -> tuple[TrialScore, ...]:
    return tuple(TrialScore(step, 4 * step, value) for step, value in enumerate(values, 1))


def ended(number: int, settings: dict[str, Any], *values: float, status: TrialStatus = "finished") -> Trial:
    return Trial(number, settings, 24, status, curve=curve(*values))


def miss(settings: dict[str, Any]) -> float:
    """How far from the optimum, which is 0.1."""
    return abs(math.log10(settings[INNER_LR]) + 1)


def simulate(search: Search, trials: int, sign: float = -1) -> list[Trial]:
    found: list[Trial] = []
    for number in range(trials):
        settings = propose(search, number, found)
        found.append(ended(number, settings, sign * miss(settings) ** 2))
    return found


def mean_miss(trials: Sequence[Trial]) -> float:
    return sum(miss(dict(trial.settings)) for trial in trials) / len(trials)


def test_a_proposal_is_a_function_of_its_arguments(search: Search) -> None:
    trials = simulate(search, 14)
    for number in (0, 5, 14):
        before = trials[:number]
        assert propose(search, number, before) == propose(search, number, list(before))
    assert simulate(search, 14) == trials
    assert propose(search, 14, trials) != propose(search, 15, trials)
    assert propose(search, 14, trials) != propose(search, 14, trials[:-1])
    assert propose(with_seed(search, 1), 14, trials) != propose(search, 14, trials)


def test_the_first_are_random_and_differ(search: Search) -> None:
    first = [propose(search, number, ()) for number in range(20)]
    assert len({settings[INNER_LR] for settings in first}) == 20
    assert all(1e-4 <= settings[INNER_LR] <= 10 for settings in first)
    # They do not depend on what was found: whatever ended, as long as it is less than a third.
    known = [ended(i, {INNER_LR: 0.1}, 1.0) for i in range(RANDOM_AT_MOST - 1)]
    assert propose(search, 9, known) == propose(search, 9, ())
    assert propose(search, 9, [*known, ended(9, {INNER_LR: 0.1}, 1.0)]) != propose(search, 9, ())


@pytest.mark.parametrize(("trials", "random"), [(3, 1), (4, 2), (9, 3), (1000, RANDOM_AT_MOST)])
def test_the_first_third_is_random(trials: int, random: int, make_experiment: MakeExperiment) -> None:
    search = make_search(make_experiment(), searcher="tpe", trials=trials)
    known = [ended(i, {INNER_LR: 0.1}, 1.0 + i) for i in range(random)]
    assert propose(search, 50, known[:-1]) == propose(search, 50, ())
    assert propose(search, 50, known) != propose(search, 50, ())


def test_later_ones_are_near_the_optimum(search: Search) -> None:
    late, random = [], []
    for seed in range(4):
        seeded = with_seed(search, seed)
        late += simulate(seeded, 30)[15:]
        random += [ended(number, propose(seeded, number, ())) for number in range(15, 30)]
    assert mean_miss(late) < 0.75 * mean_miss(random)


def test_less_is_better_of_errors(make_waves: MakeExperiment) -> None:
    space = {INNER_LR: "loguniform(1e-4, 10)"}
    search = make_search(make_waves(), space, searcher="tpe", trials=30)
    random = [ended(number, propose(search, number, ())) for number in range(15, 30)]
    assert mean_miss(simulate(search, 30, sign=1)[15:]) < 0.75 * mean_miss(random)


def test_failed_trials_are_shunned(search: Search) -> None:
    """Half of the space fails: it is left alone. The other half is all the same."""

    def many(high_fails: bool) -> float:
        found: list[Trial] = []
        for number in range(30):
            settings = propose(with_seed(search, 2), number, found)
            fails = (settings[INNER_LR] > 0.03) == high_fails
            found.append(ended(number, settings, status="failed") if fails else ended(number, settings, 0.5))
        return sum(trial.settings[INNER_LR] > 0.03 for trial in found[15:]) / 15

    assert many(high_fails=True) < 0.3 and many(high_fails=False) > 0.7


def test_whatever_became_of_the_others(search: Search) -> None:
    kinds: list[tuple[TrialStatus, tuple[float, ...]]] = [
        ("finished", (0.5,)),
        ("finished", (math.nan, math.inf)),
        ("failed", ()),
        ("failed", (0.25, math.nan)),
        ("stopped early", ()),
        ("stopped early", (0.25, 0.5)),
        ("stopped early", (math.nan, -math.inf)),
        ("running", ()),
        ("running", (0.25,)),
        ("waiting", ()),
    ]
    for kind in kinds:
        trials = [
            ended(number, {INNER_LR: 0.001 * (number + 1)}, *values, status=status)
            for number, (status, values) in enumerate([*kinds * 3, *[kind] * 12])
        ]
        assert 1e-4 <= propose(search, 42, trials)[INNER_LR] <= 10


def test_one_that_runs_is_not_looked_for_again(search: Search) -> None:
    """Those that run count as bad, so that what is proposed meanwhile lies elsewhere."""
    known = simulate(search, 16)
    places = [propose(search, number, known)[INNER_LR] for number in range(16, 36)]
    running = [ended(16 + i, {INNER_LR: place}, status="running") for i, place in enumerate(places)]
    assert [propose(search, n, [*known, *running])[INNER_LR] for n in range(36, 46)] != [
        propose(search, n, known)[INNER_LR] for n in range(36, 46)
    ]


def test_choices_survive(make_experiment: MakeExperiment) -> None:
    lists = choice([8], [4, 4], {"*": 0.1, "head.*": [None]})
    mixed = choice(1, True, 1.0, "1", None)
    space = {
        "model.options.a": lists,
        "model.options.b": mixed,
        "seed": "randint(2, 4)",
        "chunk_size": "lograndint(1, 9)",
    }
    search = make_search(make_experiment(), space, searcher="tpe", trials=12)
    found: list[Trial] = []
    for number in range(30):
        settings = propose(search, number, found)
        assert list(settings) == list(space)
        assert repr(settings["model.options.a"]) in map(repr, lists.values)
        assert repr(settings["model.options.b"]) in map(repr, mixed.values)
        assert settings["seed"] in (2, 3) and settings["chunk_size"] in range(1, 9)
        assert type(settings["seed"]) is type(settings["chunk_size"]) is int
        # The best is True: neither 1 nor 1.0.
        found.append(ended(number, settings, float(settings["model.options.b"] is True)))
    late = [trial.settings["model.options.b"] for trial in found[10:]]
    assert sum(value is True for value in late) > len(late) / 2
    assert {repr(trial.settings["model.options.a"]) for trial in found} == set(map(repr, lists.values))


def test_choices_are_nobody_elses(make_experiment: MakeExperiment) -> None:
    domain = choice([8])
    search = make_search(make_experiment(), {"model.hidden": domain}, searcher="tpe")
    propose(search, 0, ())["model.hidden"].append(4)
    assert domain.values == ([8],)


def test_all_kinds_of_fields_together(make_experiment: MakeExperiment) -> None:
    space = {INNER_LR: LR, "optimizer.outer_lr": "uniform(0.01, 1)", "meta_batch_size": "lograndint(1, 9)"}
    search = make_search(make_experiment(), space, searcher="tpe", trials=9)
    found: list[Trial] = []
    for number in range(9):
        settings = propose(search, number, found)
        search.experiment_of(settings)
        found.append(ended(number, settings, 0.1 * number))
