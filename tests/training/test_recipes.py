"""Recipes; tests/test_bad_input.py has what the command line says about wrong ones."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.training.experiment import Experiment
from metaray.training.recipes import load_recipe

RECIPE = """
from metaray.training.experiment import Experiment
from metaray.training.recipes import load_recipe
import neighbour

def tiny() -> Experiment:
    return Experiment.from_json(neighbour.TEXT)

def number() -> int:
    return 3

def _hidden() -> Experiment:
    return tiny()
"""


@pytest.fixture
def recipe(tmp_path: Path, make_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))  # and takes back what loading appends
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    (tmp_path / "neighbour.py").write_text(f"TEXT = {make_experiment().to_json()!r}")
    (tmp_path / "recipes.py").write_text(RECIPE)
    (tmp_path / "tiny.json").write_text(make_experiment().to_json())
    return tmp_path / "recipes.py"


def test_functions_and_json(recipe: Path, make_experiment: Callable[..., Experiment]) -> None:
    assert load_recipe(f"{recipe}:tiny") == make_experiment()
    assert load_recipe(str(recipe.parent / "tiny.json")) == make_experiment()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":tyni", r"'tyni'. Did you mean 'tiny'\? Known: number, tiny"),
        (":_hidden", "unknown recipe"),
        (":load_recipe", "unknown recipe"),
        (":number", "returned int, not an Experiment"),
        ("", "write it as path/to/file.py:function"),
    ],
)
def test_wrong_names(name: str, message: str, recipe: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(f"{recipe}{name}")


def test_missing_files_list_the_others(recipe: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*recipe\.py.* there are .*recipes\.py"):
        load_recipe(f"{recipe.parent}/recipe.py:tiny")
