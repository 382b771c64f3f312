import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metaray.experiment.experiment import Experiment
from metaray.experiment.recipes import call_recipe, load_recipe
from metaray.training.checks.preflight import preflight
from metaray.tuning.search import Search

JOBS = Path(__file__).parents[2] / "jobs"


def recipes() -> Iterator[str]:
    for file in sorted(JOBS.glob("*.py")):
        module = importlib.import_module(f"jobs.{file.stem}")
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{file.name}:{name}"


RECIPES = list(recipes())


def test_the_recipes_that_the_documentation_names() -> None:
    assert {"glyphs.py:demo", "omniglot.py:maml_5way_1shot", "omniglot.py:protonet_5way_1shot"} <= set(RECIPES)


SEARCHES = [recipe for recipe in RECIPES if isinstance(call_recipe(f"{JOBS}/{recipe}")[0], Search)]


@pytest.mark.parametrize("recipe", SEARCHES)
def test_a_search_is_valid(recipe: str) -> None:
    search = call_recipe(f"{JOBS}/{recipe}")[0]
    assert isinstance(search, Search)
    assert Search.parse(search.model_dump(mode="json"), where="test") == search
    search.check()


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - set(SEARCHES)))
def test_a_recipe_is_a_valid_experiment(recipe: str) -> None:
    experiment = load_recipe(f"{JOBS}/{recipe}")
    assert Experiment.from_json(experiment.to_json()) == experiment
    assert Experiment.from_json(experiment.to_json()).to_json() == experiment.to_json()
    assert experiment.evaluation.test_episodes >= 600, "fewer say little"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_what_it_is(recipe: str) -> None:
    file, _, name = recipe.partition(":")
    function: Callable[[], Experiment] = getattr(importlib.import_module(f"jobs.{file.removesuffix('.py')}"), name)
    assert function.__doc__
    assert function.__doc__.strip().endswith(".")


def test_the_demo_passes_preflight() -> None:
    preflight(load_recipe(f"{JOBS}/glyphs.py:demo"))
