"""Who is replaced after a generation, and by whom."""

import math

from hypothesis import given
from hypothesis import strategies as st

from metaray.tuning.population import FACTORS, SHARE, next_generation
from metaray.tuning.trial import Objective

ACCURACY, MSE = Objective("accuracy", highest=True), Objective("mse", highest=False)

objectives = st.sampled_from([ACCURACY, MSE])
values = st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, -math.inf, 0.5])
populations = st.dictionaries(st.integers(0, 60), values, min_size=2, max_size=20)
seeds, generations = st.integers(0, 2**63 - 1), st.integers(0, 50)


def test_the_worst_quarter_is_replaced_by_the_best_one() -> None:
    scores = {number: float(number) for number in range(8)}
    for objective, worst, best in ((ACCURACY, [0, 1], {6, 7}), (MSE, [6, 7], {0, 1})):
        found = [next_generation(scores, objective, seed, 0) for seed in range(20)]
        assert all([copy.replaces for copy in copies] == worst for copies in found)
        assert {copy.of for copies in found for copy in copies} == best
        assert {copy.factor for copies in found for copy in copies} == set(FACTORS)


def test_of_two_the_worse_is_replaced() -> None:
    for objective, replaced in ((ACCURACY, 3), (MSE, 5)):
        copies = next_generation({3: 0.1, 5: 0.2}, objective, 0, 0)
        assert [(copy.replaces, copy.of) for copy in copies] == [(replaced, 8 - replaced)]


def test_those_that_failed_are_all_replaced() -> None:
    scores = {0: math.nan, 1: 0.5, 2: math.inf, 3: -math.inf, 4: math.nan}
    for objective in (ACCURACY, MSE):
        copies = next_generation(scores, objective, 0, 0)
        assert [copy.replaces for copy in copies] == [0, 2, 3, 4] and {copy.of for copy in copies} == {1}
        assert next_generation(dict.fromkeys(range(4), math.nan), objective, 0, 0) == []


def test_the_seed_and_the_generation_decide() -> None:
    scores = {number: float(number) for number in range(20)}
    drawn = {tuple(next_generation(scores, ACCURACY, seed, number)) for seed in range(5) for number in range(5)}
    assert len(drawn) == 25


@given(populations, objectives, seeds, generations)
def test_it_is_a_function_of_its_arguments(
    scores: dict[int, float], objective: Objective, seed: int, generation: int
) -> None:
    turned = dict(reversed(scores.items()))
    found = next_generation(scores, objective, seed, generation)
    assert found == next_generation(turned, objective, seed, generation)
    if objective is ACCURACY:
        mirrored = {number: -score for number, score in scores.items()}
        assert found == next_generation(mirrored, MSE, seed, generation)


@given(populations, objectives, seeds, generations)
def test_nobody_is_both_copied_and_replaced(
    scores: dict[int, float], objective: Objective, seed: int, generation: int
) -> None:
    copies = next_generation(scores, objective, seed, generation)
    replaced, copied = {copy.replaces for copy in copies}, {copy.of for copy in copies}
    whole = {number: score for number, score in scores.items() if math.isfinite(score)}
    if not whole:
        assert copies == []
        return
    assert len(replaced) == len(copies) and replaced | copied <= scores.keys() and not replaced & copied
    assert scores.keys() - whole.keys() <= replaced
    pairs = {(copy.of, copy.factor) for copy in copies}
    assert len(pairs) == len(copies), "two copies would train the same"
    if len(copies) <= len(FACTORS):
        assert {copy.factor for copy in copies} <= set(FACTORS)
    assert len(copies) == max(len(scores) - len(whole), 1, int(SHARE * len(scores)))
    # Nobody who stays is worse than one who goes, nobody is better than one who is copied and stands behind him.
    for gone in replaced & whole.keys():
        assert not any(objective.better(whole[gone], whole[stays]) for stays in whole.keys() - replaced)
    for donor in copied:
        ahead = [other for other in whole if objective.better(whole[other], whole[donor])]
        assert len(ahead) < max(1, int(SHARE * len(scores)))
    best = next(n for n in sorted(whole) if not any(objective.better(v, whole[n]) for v in whole.values()))
    assert best not in replaced
