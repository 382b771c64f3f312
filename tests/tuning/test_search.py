"""The description of a search, and the experiments that its trials train."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaray.algorithms import MAMLPP, MetaSGD
from metaray.config import replace
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.training.outer_loop import initial_state
from metaray.tuning.search import FIXED, INNER_LR, Search
from metaray.tuning.space import choice, loguniform, parse_space, randint, uniform
from tests.tuning.small import LR, make_search

MakeExperiment = Callable[..., Experiment]
Make = Callable[..., Search]

HEAD = "algorithm.inner_lr.head.*"
PBT: dict[str, Any] = {"searcher": "pbt", "scheduler": "none"}


@pytest.fixture
def make(make_experiment: MakeExperiment) -> Make:
    """`make({field: domain}, trials=8)`: a search of the tiny experiment of six steps of four episodes."""
    return lambda space=None, experiment=None, **fields: make_search(experiment or make_experiment(), space, **fields)


def evaluations(experiment: Experiment) -> list[int]:
    """Outer steps after which a trial is judged."""
    steps, every = experiment.num_steps, experiment.evaluation.every
    return sorted({*(range(every, steps + 1, every) if every else ()), steps})


def test_it_goes_through_json(make: Make, make_waves: MakeExperiment) -> None:
    space = {
        INNER_LR: loguniform(1e-3, 0.7),
        HEAD: uniform(0, 1 / 3),
        "meta_batch_size": randint(2, 9),
        "algorithm.inner_steps": choice(1, 2),
        "model": choice({"kind": "mlp", "hidden": [8]}, {"kind": "mlp", "hidden": [16, 4]}),
        "algorithm.second_order": choice(True, False),
    }
    searches = [
        make(space, searcher="tpe", scheduler="median", objective="loss", episodes=100, grace=7, seed=2**62),
        make({"seed": choice(1, 2)}, searcher="grid", trials=None, reduction_factor=4.5, experiment=make_waves()),
        make(trials=8, generations=3, **PBT),
    ]
    for search in searches:
        tree = json.loads(json.dumps(search.model_dump(mode="json")))
        found = Search.parse(tree, where="test")
        assert found == search and found.model_dump(mode="json") == search.model_dump(mode="json")
        assert [found.initial(n) for n in range(2)] == [search.initial(n) for n in range(2)]
    assert tree["space"] == {INNER_LR: "loguniform(0.001, 1.0)"}


def test_domains_may_be_given_as_text_or_objects(make: Make) -> None:
    assert make({INNER_LR: "loguniform(1e-3,1)"}) == make({INNER_LR: loguniform(0.001, 1)})


@pytest.mark.parametrize("key", [*FIXED, "evaluation.episodes.ways"])
def test_what_must_not_be_searched(key: str, make: Make) -> None:
    with pytest.raises(InputError, match=f"space: {key} cannot be searched: "):
        make({key: "choice(3, 4)"})


def test_the_group_of_what_must_not_be_searched(make: Make) -> None:
    with pytest.raises(InputError, match="cannot be searched"):
        make({"evaluation": choice({"seed": 1}, {"seed": 2, "val_episodes": 2})})


def test_the_data_are_not_searched(make: Make, make_waves: MakeExperiment) -> None:
    space = {"source.amplitude": "choice([0.1, 5.0], [1.0, 2.0])"}
    with pytest.raises(InputError, match="source.amplitude"):
        make(space, experiment=make_waves()).check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": {}}, "name at least one field to search, as in algorithm.inner_lr="),
        ({"space": [INNER_LR]}, "name at least one field to search"),
        ({"space": {INNER_LR: "logunifrom(1e-3,1)"}}, "unknown domain 'logunifrom'. Did you mean 'loguniform'"),
        ({"space": {INNER_LR: 0.1}}, "is a single value"),
        ({"trials": None}, "trials: say how many trials a random search has"),
        ({"trials": None, "searcher": "tpe"}, "trials: say how many trials a tpe search has"),
        ({"trials": None, **PBT}, "trials: say how many trials a pbt search has"),
        ({"trials": 0}, "trials: .*greater than or equal to 1"),
        ({"trials": 1, **PBT}, r"a population needs at least 2 members \(got 1\)"),
        ({"searcher": "pbt"}, r"scheduler: pbt replaces its worst trials itself: use none \(got 'asha'\)"),
        ({"space": {HEAD: LR}, **PBT}, r"pbt changes algorithm.inner_lr .* and nothing else \(got .*head"),
        ({"space": {INNER_LR: LR, "seed": "randint(0,3)"}, **PBT}, r"nothing else \(got algorithm.inner_lr, seed\)"),
        ({"space": {INNER_LR: LR}, "trials": None, "searcher": "grid"}, "continuous field algorithm.inner_lr needs"),
        ({"space": {"seed": "randint(0,9)"}, "trials": 8, "searcher": "grid"}, "= 9 points; give --trials 9 or more"),
        ({"grace": 25}, r"grace: 25 episodes are more than a whole trial sees \(24\)"),
        ({"grace": 13, "episodes": 12}, r"grace: 13 episodes are more than a whole trial sees \(12\)"),
        ({"searcher": "tpo"}, "searcher: unknown value 'tpo'. Did you mean 'tpe'"),
        ({"scheduler": "hyperband"}, "scheduler: unknown value 'hyperband'"),
        ({"objective": "accuracy"}, "objective: unknown value"),
        ({"generations": 1, **PBT}, "generations: "),
        ({"reduction_factor": 1}, "reduction_factor: "),
        ({"seed": -1}, "seed: "),
        ({"trails": 4}, "unknown key 'trails'. Did you mean 'trials'"),
    ],
)
def test_wrong_searches(fields: dict[str, Any], message: str, make_experiment: MakeExperiment) -> None:
    given = {"experiment": make_experiment(), "space": {INNER_LR: LR}, "trials": 4, **fields}
    with pytest.raises(InputError, match=message):
        Search.parse(given, where="test")


def test_grace_is_only_for_who_uses_it(make: Make) -> None:
    assert make(scheduler="none", grace=1000).grace_episodes == 1000


@pytest.mark.parametrize(
    ("space", "fields", "message"),
    [
        ({"algorithm.iner_lr": LR}, {}, "unknown key 'algorithm.iner_lr'. Did you mean 'algorithm.inner_lr'"),
        ({"meta_batchsize": "randint(1,4)"}, {}, "Did you mean 'meta_batch_size'"),
        ({"algorithm.inner_lr.3": "choice([1])"}, {}, "algorithm.inner_lr"),
        ({"model.hiden": "choice([8])"}, {}, "Did you mean 'model.hidden'"),
        ({"modle.hidden": "choice([8])"}, {}, "unknown key 'modle.hidden'. Known: algorithm, "),
        ({INNER_LR: "uniform(-1, 1)"}, {}, r"uniform\(-1.0, 1.0\): with algorithm.inner_lr=-1.0: .*inner_lr"),
        ({INNER_LR: "uniform(-1, 1)"}, PBT, r"uniform\(-1.0, 1.0\): with algorithm.inner_lr=.*-1.0.*: "),
        ({"meta_batch_size": "randint(0,8)"}, {}, r"--search meta_batch_size=randint\(0, 8\): with meta_batch_size=0"),
        ({"meta_batch_size": "randint(1,2000000)"}, {}, r"with meta_batch_size=1999999: .*meta_batch_size"),
        ({"algorithm.inner_steps": "choice(1, 2, x)"}, {}, "with algorithm.inner_steps='x': .*inner_steps"),
        ({"episodes.ways": "randint(1,4)"}, {}, "with episodes.ways=1: .*these have at least 2 ways"),
        ({"algorithm.kind": "choice(maml, mamml)"}, {}, "with algorithm.kind='mamml': .*Did you mean 'maml'"),
    ],
)
def test_checked_before_it_starts(space: dict[str, str], fields: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(space, **fields).check()
    assert str(caught.value).startswith(f"--search {next(iter(space))}=")


def test_the_field_that_is_wrong_is_named_among_several(make: Make) -> None:
    with pytest.raises(InputError, match=r"^--search meta_batch_size=.*: with algorithm.inner_lr=0.001, meta_batch_si"):
        make({INNER_LR: LR, "meta_batch_size": "randint(1,2000000)"}).check()


def test_right_ones_pass(make: Make) -> None:
    make({INNER_LR: LR, "meta_batch_size": "randint(1,40)", "episodes.shots": "randint(1,3)"}).check()
    make(**PBT).check()
    make({"algorithm.kind": "choice(maml, protonet, anil)"}).check()


def test_values_arrive(make: Make, make_experiment: MakeExperiment) -> None:
    search = make({INNER_LR: LR, "optimizer.outer_lr": LR, "model.hidden": "choice([8], [4, 4])"}, scheduler="none")
    settings = {INNER_LR: 0.25, "optimizer.outer_lr": 0.5, "model.hidden": [4, 4]}
    found, base = search.experiment_of(settings), make_experiment()
    expected = replace(base, algorithm=replace(base.algorithm, inner_lr=0.25))
    expected = replace(expected, model=replace(base.model, hidden=(4, 4)))
    assert found == replace(expected, optimizer=replace(base.optimizer, outer_lr=0.5))
    assert search.experiment_of({}) == base
    with pytest.raises(InputError, match="inner_lr"):
        search.experiment_of({INNER_LR: -1.0})


@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 60), st.integers(1, 60))
def test_the_budget_is_kept_whatever_the_meta_batch(
    make_experiment: MakeExperiment, base: int, steps: int, every: int, size: int
) -> None:
    experiment = make_experiment(
        meta_batch_size=base, num_steps=steps, evaluation=Evaluation(every=every, val_episodes=2, test_episodes=2)
    )
    search = make_search(experiment, {"meta_batch_size": "randint(1, 61)"}, scheduler="none")
    found = search.experiment_of({"meta_batch_size": size})
    assert found.meta_batch_size == size and found.num_steps >= 1
    assert abs(found.num_steps * size - base * steps) <= size / 2 or found.num_steps == 1
    # As often as the base, or where that is no whole number of steps a little less so.
    wanted = every * base or base * steps
    assert wanted <= found.evaluation.every * size < wanted + size
    if size == base:
        assert found.num_steps == steps


def test_a_searched_number_of_steps_is_not_changed(make: Make) -> None:
    space = {"meta_batch_size": "choice(2, 8)", "num_steps": "choice(6, 9)", "evaluation.every": "choice(1, 5)"}
    for episodes in (None, 1000):
        settings = {"meta_batch_size": 8, "num_steps": 9, "evaluation.every": 5}
        found = make(space, episodes=episodes).experiment_of(settings)
        assert (found.meta_batch_size, found.num_steps, found.evaluation.every) == (8, 9, 5)


def test_a_budget_of_its_own(make: Make) -> None:
    search = make({"meta_batch_size": "choice(4, 8)"}, episodes=96, scheduler="none")
    assert search.budget == 96 and search.grace_episodes == 10
    assert [search.experiment_of({"meta_batch_size": size}).num_steps for size in (4, 8, 200)] == [24, 12, 1]
    assert make().budget == 24 and make(episodes=5).experiment_of({}).num_steps == 1
    assert make(grace=3).grace_episodes == 3 and make().grace_episodes == 2


@given(st.data())
def test_trials_are_judged_when_their_grace_is_over(make_experiment: MakeExperiment, data: st.DataObject) -> None:
    base, steps, every, size = (data.draw(st.integers(1, most)) for most in (40, 300, 60, 60))
    every *= data.draw(st.booleans())
    budget = data.draw(st.none() | st.integers(1, 20_000))
    experiment = make_experiment(
        meta_batch_size=base, num_steps=steps, evaluation=Evaluation(every=every, val_episodes=2, test_episodes=2)
    )
    grace = data.draw(st.none() | st.integers(1, budget or base * steps))
    scheduler = data.draw(st.sampled_from(["asha", "median"]))
    search = make_search(
        experiment, {"meta_batch_size": "randint(1, 61)"}, scheduler=scheduler, episodes=budget, grace=grace
    )
    found = search.experiment_of({"meta_batch_size": size})
    interval, wanted = found.evaluation.every * size, every * base or search.budget
    assert interval < wanted + size, "no less often than the base"
    parts = math.ceil(search.grace_episodes / wanted)
    over = parts * interval - search.grace_episodes
    assert 0 <= over <= parts * size, "an evaluation on the grace, or a step of each interval after it"
    assert found.evaluation.val_episodes == 2


def test_trials_are_judged_on_their_grace_where_steps_allow(make: Make, make_experiment: MakeExperiment) -> None:
    evaluation = Evaluation(every=100, val_episodes=2, test_episodes=2)
    experiment = make_experiment(num_steps=900, evaluation=evaluation)
    for grace, expected in ((400, 100), (200, 50), (1000, 84), (40, 10), (3600, 100), (None, 100), (1, 1)):
        found = make_search(experiment, grace=grace).experiment_of({})
        assert found.evaluation.every == expected
    assert make_search(experiment, grace=40, scheduler="none").experiment_of({}).evaluation.every == 100


def test_trials_are_judged_on_the_same_episodes(make: Make, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(algorithm={"kind": "protonet"})
    search = make_search(experiment, {"episodes.shots": "choice(1, 2)", "episodes.ways": "choice(3, 4)"})
    search.check()
    found = search.experiment_of({"episodes.shots": 2, "episodes.ways": 4})
    assert (found.episodes.shots, found.episodes.ways) == (2, 4)
    assert found.evaluation.episodes == found.eval_spec == experiment.episodes
    # A learner that is fixed to its ways cannot be judged at others.
    with pytest.raises(InputError, match="it cannot train at 4 ways"):
        make({"episodes.ways": "choice(3, 4)"}).check()
    own = EpisodeSpec(ways=3, shots=2, queries=3)
    experiment = make_experiment(evaluation=Evaluation(episodes=own, every=2, val_episodes=6, test_episodes=8))
    search = make_search(experiment, {"episodes.shots": "choice(1, 2)"})
    assert search.experiment_of({"episodes.shots": 2}).eval_spec == own
    assert make().experiment_of({INNER_LR: 0.5}).evaluation.episodes is None


def test_trials_are_judged_on_the_same_episodes_where_all_of_them_is_searched(
    make: Make, make_experiment: MakeExperiment
) -> None:
    some = [{"ways": 3, "shots": 1, "queries": 2}, {"ways": 3, "shots": 3, "queries": 1}]
    found = make({"episodes": choice(*some)}).experiment_of({"episodes": some[1]})
    assert found.episodes.shots == 3 and found.eval_spec == make_experiment().episodes


@given(
    st.integers(1, 20), st.integers(1, 400), st.integers(0, 500), st.integers(2, 60), st.none() | st.integers(1, 999)
)
def test_generations_end_with_an_evaluation(
    make_experiment: MakeExperiment, size: int, steps: int, every: int, generations: int, episodes: int | None
) -> None:
    experiment = make_experiment(
        meta_batch_size=size, num_steps=steps, evaluation=Evaluation(every=every, val_episodes=2, test_episodes=2)
    )
    search = make_search(experiment, episodes=episodes, generations=generations, **PBT)
    found = search.experiment_of({INNER_LR: {"steps": [0], "values": [0.1]}})
    total, length = found.num_steps, search.generation_steps
    boundaries = set(range(length, total + 1, length)) | {total}
    assert length >= 1 and boundaries <= set(evaluations(found))
    assert len(boundaries) <= generations + 1
    if total % generations == 0:
        assert len(boundaries) == generations
    if every and length % math.ceil(length / every) == 0:
        assert found.evaluation.every <= every, "as often as the base, where that is possible"


def test_pbt_begins_with_schedules(make: Make) -> None:
    search = make(trials=3, seed=1, **PBT)
    values = [make(trials=3, seed=1).initial(number)[INNER_LR] for number in range(3)]
    assert [search.initial(number) for number in range(3)] == [
        {INNER_LR: {"steps": [0], "values": [value]}} for value in values
    ]
    assert len(set(values)) == 3


def test_grids(make: Make) -> None:
    space = parse_space([f"{INNER_LR}=loguniform(0.01,1)", "algorithm.inner_steps=choice(1,2)"])
    points = [{INNER_LR: rate, "algorithm.inner_steps": steps} for rate in (0.01, 0.1, 1.0) for steps in (1, 2)]
    found = {}
    for scheduler in ("none", "asha", "median"):
        search = make(space, searcher="grid", trials=7, scheduler=scheduler)
        assert search.population == 6
        found[scheduler] = [search.initial(number) for number in range(6)]
    assert found["none"] == points
    # In ascending order each might be better than all before it, so that none would be stopped.
    assert found["asha"] == found["median"] != points and sorted(found["asha"], key=str) == sorted(points, key=str)
    other = make(space, searcher="grid", trials=7, seed=1)
    assert [other.initial(number) for number in range(6)] != found["asha"]
    assert make({"seed": "choice(1, 2, 3)"}, searcher="grid", trials=None).population == 3
    assert make({"seed": "choice(1, 2, 3)"}, searcher="grid", trials=50).population == 3
    assert make(trials=50).population == 50


def test_what_is_optimised(make: Make, make_waves: MakeExperiment) -> None:
    assert make().optimises == ("accuracy", True) and make(objective="loss").optimises == ("loss", False)
    waves = {"experiment": make_waves()}
    assert make(**waves).optimises == ("mse", False) and make(objective="loss", **waves).optimises == ("loss", False)


def test_logs(make: Make) -> None:
    space = {INNER_LR: LR, HEAD: "uniform(0, 1)", "seed": "lograndint(1, 5)", "meta_batch_size": "choice(1, 2)"}
    assert make(space).logs == {INNER_LR: True, HEAD: False, "seed": True, "meta_batch_size": False}


def rate_of(experiment: Experiment) -> Any:
    return experiment.algorithm.inner_lr  # type: ignore[attr-defined]


def test_an_inner_rate_of_one_group_of_parameters(make: Make) -> None:
    search = make({HEAD: LR})
    search.check()
    assert rate_of(search.experiment_of({HEAD: 0.5})) == {"*": 0.1, "head.*": 0.5}


@pytest.mark.parametrize("keys", [[HEAD, INNER_LR], [INNER_LR, HEAD]])
def test_the_rate_of_all_and_one_of_a_group(keys: list[str], make: Make) -> None:
    values = {INNER_LR: 0.25, HEAD: 0.5}
    search = make(dict.fromkeys(keys, LR))
    search.check()
    assert rate_of(search.experiment_of({key: values[key] for key in keys})) == {"*": 0.25, "head.*": 0.5}


@pytest.mark.parametrize("turned", [False, True])
def test_rates_by_step_and_the_number_of_steps(turned: bool, make: Make, make_experiment: MakeExperiment) -> None:
    keys = ["algorithm.inner_lr.0", "algorithm.inner_lr.2", "algorithm.inner_steps"]
    space: dict[str, Any] = dict(zip(keys, [LR, LR, "choice(3, 4, 6)"], strict=True))
    if turned:
        space = dict(reversed(space.items()))
    search = make(space, experiment=make_experiment(algorithm=MAMLPP(inner_lr=0.1, inner_steps=2)))
    search.check()
    for steps in (3, 4, 6):
        settings = {key: {keys[0]: 0.5, keys[1]: 0.25}.get(key, steps) for key in space}
        found = search.experiment_of(settings).algorithm
        assert found.inner_steps == steps  # type: ignore[attr-defined]
        assert found.inner_lr == (0.5, 0.1, 0.25, *[0.1] * (steps - 3))  # type: ignore[attr-defined]


def test_a_rate_of_a_step_that_some_trials_do_not_have(make: Make, make_experiment: MakeExperiment) -> None:
    space = {"algorithm.inner_lr.2": LR, "algorithm.inner_steps": "choice(4, 2)"}
    search = make(space, experiment=make_experiment(algorithm=MAMLPP()))
    with pytest.raises(InputError, match="with algorithm.inner_lr.2=0.001, algorithm.inner_steps=2: .*'2' is none"):
        search.check()


def test_where_meta_sgd_begins(make: Make, make_experiment: MakeExperiment) -> None:
    search = make(experiment=make_experiment(algorithm=MetaSGD()))
    search.check()
    found = search.experiment_of({INNER_LR: 0.3})
    assert found.algorithm == MetaSGD(inner_lr=0.3)
    meta = initial_state(found, torch.device("cpu")).meta
    rates = [value for name, value in meta.items() if name.startswith("inner_lr:")]
    assert rates and all(bool((rate == 0.3).all()) for rate in rates)


def test_a_rate_for_another_algorithm(make: Make) -> None:
    space = {INNER_LR: LR, "algorithm.kind": "choice(anil, maml)"}
    found = make(space).experiment_of({INNER_LR: 0.3, "algorithm.kind": "anil"})
    assert found.algorithm.kind == "anil" and rate_of(found) == 0.3


def test_trials_start_afresh(make: Make, make_experiment: MakeExperiment) -> None:
    initial = {"run": "x", "step": 2, "parameters_sha256": "0" * 64}
    with pytest.raises(InputError, match=r"trials start afresh, not from run 'x' \(initial\)"):
        make(experiment=make_experiment(initial=initial))
