"""Searches as recipes and command lines describe them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.tuning.recipes import describe
from metaray.tuning.search import INNER_LR, Search
from metaray.tuning.space import choice, loguniform
from tests.tuning.small import LR, make_search

RECIPE = """
from metaray.experiment.experiment import Experiment
from metaray.tuning.search import Search

def tiny() -> Experiment:
    return Experiment.from_json(TEXT)

def search() -> Search:
    space = {"algorithm.inner_lr": "loguniform(0.01, 1)", "algorithm.inner_steps": "choice(1, 2)"}
    return Search(experiment=tiny(), space=space, trials=8, searcher="tpe", grace=12, seed=5)

def pbt() -> Search:
    return Search(experiment=tiny(), space={"algorithm.inner_lr": "uniform(0, 1)"}, trials=8, searcher="pbt",
                  scheduler="none", generations=3)

def wrong() -> Search:
    return Search(experiment=tiny(), space={}, trials=8)

def number() -> int:
    return 3
"""

STEPS = "algorithm.inner_steps"


@pytest.fixture
def recipe(tmp_path: Path, make_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading appends
    (tmp_path / "recipe.py").write_text(f"TEXT = {make_experiment().to_json()!r}\n{RECIPE}")
    (tmp_path / "tiny.json").write_text(make_experiment().to_json())
    return str(tmp_path / "recipe.py")


@pytest.mark.parametrize("name", ["recipe.py:tiny", "tiny.json"])
def test_an_experiment_is_searched_as_the_flags_say(
    name: str, recipe: str, make_experiment: Callable[..., Experiment]
) -> None:
    path = str(Path(recipe).with_name(name.partition(":")[0])) + "".join(name.partition(":")[1:])
    changes = {"trials": 3, "searcher": "tpe", "scheduler": "median", "objective": "loss", "seed": 4}
    found = describe(path, [f"{INNER_LR}={LR}", "seed=choice(1,2)"], ["meta_batch_size=2", "num_steps=40"], changes)
    experiment = make_experiment(meta_batch_size=2, num_steps=40)
    assert found == make_search(experiment, {INNER_LR: loguniform(1e-3, 1), "seed": choice(1, 2)}, **changes)


def test_a_search_is_taken_as_it_is(recipe: str, make_experiment: Callable[..., Experiment]) -> None:
    space = {INNER_LR: "loguniform(0.01, 1)", STEPS: "choice(1, 2)"}
    found = describe(f"{recipe}:search", [], [], {})
    assert found == make_search(make_experiment(), space, trials=8, searcher="tpe", grace=12, seed=5)


def test_flags_change_a_search(recipe: str, make_experiment: Callable[..., Experiment]) -> None:
    changes: dict[str, Any] = {"trials": 2, "searcher": "random", "grace": 3, "episodes": 48}
    found = describe(f"{recipe}:search", [f"{STEPS}=randint(1,4)", "seed=choice(1,2)"], ["num_steps=40"], changes)
    space = {INNER_LR: "loguniform(0.01, 1)", STEPS: "randint(1, 4)", "seed": "choice(1, 2)"}
    assert found == make_search(make_experiment(num_steps=40), space, seed=5, **changes)


def test_pbt_stops_nobody_early(recipe: str) -> None:
    one = [f"{INNER_LR}={LR}"]
    assert describe(f"{recipe}:tiny", one, [], {"trials": 4, "searcher": "pbt"}).scheduler == "none"
    assert describe(f"{recipe}:pbt", [], [], {}).scheduler == "none"
    assert describe(f"{recipe}:tiny", one, [], {"trials": 4, "searcher": "tpe"}).scheduler == "asha"
    with pytest.raises(InputError, match="use none"):
        describe(f"{recipe}:tiny", one, [], {"trials": 4, "searcher": "pbt", "scheduler": "asha"})


@pytest.mark.parametrize(
    ("name", "space", "settings", "changes", "message"),
    [
        ("tiny", [f"{INNER_LR}={LR}"], [f"{INNER_LR}=0.1"], {}, f"^{INNER_LR} is given by --set and searched by --sea"),
        ("search", [], [f"{STEPS}=3"], {}, f"^{STEPS} is given by --set and searched by --search: leave one out"),
        ("tiny", [], [], {}, "name at least one field to search"),
        ("tiny", [f"{INNER_LR}={LR}"], [], {"trials": None}, "trials: say how many trials"),
        ("tiny", [f"{INNER_LR}={LR}"] * 2, [], {}, f"--search {INNER_LR} is given twice"),
        ("tiny", [f"{INNER_LR}=0.1"], [], {}, f"--search {INNER_LR}: .* is a single value; give it with --set"),
        ("tiny", [f"{INNER_LR}={LR}"], ["num_step=3"], {}, "unknown key 'num_step'. Did you mean 'num_steps'"),
        ("tiny", [f"{INNER_LR}={LR}"], [], {"searcher": "randm"}, "unknown value 'randm'. Did you mean 'random'"),
        ("tiny", ["evaluation.seed=choice(1,2)"], [], {}, "search of .*recipe.py:tiny: .*evaluation.seed cannot be"),
        ("search", [], [], {"searcher": "pbt"}, f"nothing else .got {INNER_LR}, {STEPS}"),
        ("number", [], [], {}, "recipe .*:number' returned int, neither an Experiment nor a Search"),
        ("wrong", [], [], {}, "recipe .*:wrong': Search: space: name at least one field"),
        ("serch", [], [], {}, "'serch'. Did you mean 'search'"),
    ],
)
def test_wrong_ones(
    name: str, space: list[str], settings: list[str], changes: dict[str, Any], message: str, recipe: str
) -> None:
    with pytest.raises(InputError, match=message):
        describe(f"{recipe}:{name}", space, settings, {"trials": 4, **changes})


def test_a_part_of_what_is_set_may_be_searched(recipe: str) -> None:
    found = describe(f"{recipe}:tiny", [f"{INNER_LR}.head.*={LR}"], [f"{INNER_LR}=0.5"], {"trials": 4})
    assert isinstance(found, Search)
    algorithm = found.experiment_of({f"{INNER_LR}.head.*": 0.25}).algorithm
    assert algorithm.inner_lr == {"*": 0.5, "head.*": 0.25}  # type: ignore[attr-defined]
