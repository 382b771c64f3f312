"""Recipes; tests/test_bad_input.py has what the command line says about wrong ones."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.experiment.recipes import load_recipe

RECIPE = """
from metaray.experiment.experiment import Experiment
from metaray.experiment.recipes import load_recipe
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
    for name in ("neighbour", "recipes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
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
        ("", "write it as path/to/file.py:function, the functions in it are: number, tiny"),
    ],
)
def test_wrong_names(name: str, message: str, recipe: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(f"{recipe}{name}")


def test_missing_files_list_the_others(recipe: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*recipe\.py.* there are .*recipes\.py"):
        load_recipe(f"{recipe.parent}/recipe.py:tiny")


OWN = """
from metaray.algorithms import ProtoNet
from metaray.config import replace
from metaray.models import Custom
from metaray.experiment.experiment import Experiment
from metaray.experiment.optimizer import Optimizer
from torch import nn
import neighbour

class Net(nn.Sequential):
    def __init__(self, feature_shape, outputs):
        super().__init__(nn.Flatten())

class Own(ProtoNet):
    temperature: float = 1.0

class Hotter(Optimizer):
    temperature: float = 2.0

def algorithm():
    return replace(Experiment.from_json(neighbour.TEXT), algorithm=Own(temperature=3.0))

def network():
    return replace(Experiment.from_json(neighbour.TEXT), model=Custom(path=f"{__name__}:Net"))

def optimizer():
    return replace(Experiment.from_json(neighbour.TEXT), optimizer=Hotter())

def broken():
    return {}["b"]

def number():
    return 3
"""


@pytest.fixture
def own(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a recipe that defines classes of its own into a file of a given name."""

    def write(name: str) -> Path:
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
        (recipe.parent / name).write_text(OWN)
        return recipe.parent / name

    return write


@pytest.mark.parametrize("function", ["algorithm", "network"])
def test_a_class_in_the_recipe_file_is_found_from_json_in_another_process(
    function: str, own: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = own("own_recipe.py")
    experiment = load_recipe(f"{file}:{function}")
    assert override(experiment, ["seed=3"]).algorithm == experiment.algorithm
    (file.parent / "own.json").write_text(experiment.to_json())
    monkeypatch.chdir("/")
    code = (
        "import sys; from metaray.experiment.recipes import load_recipe; "
        "e = load_recipe(sys.argv[1]); print(e.to_json(), end='')"
    )
    command = [sys.executable, "-c", code, str(file.parent / "own.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, experiment.to_json()), done.stderr


@pytest.mark.parametrize("function", ["algorithm", "network"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("colorsys.py", "`import colorsys` gives .*colorsys.py"),
        ("my-recipe.py", "'my-recipe' is no name of a module"),
    ],
)
def test_a_class_in_a_recipe_file_that_no_import_leads_to_is_refused_with_the_reason(
    name: str, why: str, function: str, own: Callable[[str], Path]
) -> None:
    before = importlib.import_module("colorsys")
    # Not by `own`, which would forget Python's own module.
    file = own("written.py").rename(own("written.py").with_name(name))
    with pytest.raises(InputError, match=f"none leads to the recipe file .*{name}: {why}.* Rename the file"):
        load_recipe(f"{file}:{function}")
    assert sys.modules["colorsys"] is before


def test_a_recipe_with_the_name_of_a_python_module_works_without_classes_of_its_own(
    recipe: Path, make_experiment: Callable[..., Experiment]
) -> None:
    assert load_recipe(f"{recipe.rename(recipe.with_name('random.py'))}:tiny") == make_experiment()
    assert "tiny" not in vars(importlib.import_module("random"))


def test_a_subclass_of_optimizer_in_a_recipe_is_refused_by_name(own: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="optimizer: own_recipe:Hotter is a subclass of Optimizer, and what it adds"):
        load_recipe(f"{own('own_recipe.py')}:optimizer")


@pytest.mark.parametrize(
    ("function", "line"),
    [("broken", r"raised an error:\n.*own_recipe.py:\d+: in broken\n.*\nE   KeyError: 'b'"), ("number", "def number")],
)
def test_a_recipe_that_goes_wrong_says_the_users_own_line(function: str, line: str, own: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=line):
        load_recipe(f"{own('own_recipe.py')}:{function}")


def test_a_recipe_file_that_cannot_be_loaded_says_the_users_own_line(recipe: Path) -> None:
    recipe.write_text("x = 1\ny = x / 0\n")
    with pytest.raises(InputError, match=r"cannot be loaded:\n.*recipes.py:2: in <module>\n.*x / 0\nE   ZeroDivision"):
        load_recipe(f"{recipe}:tiny")
    assert "recipes" not in sys.modules
