"""Recipes are found without running anything."""

import importlib
import inspect
from pathlib import Path

import pytest

from metaray.api.recipe_files import RecipeFound, find_recipes
from metaray.errors import InputError

JOBS = Path(__file__).parents[2] / "jobs"

FILE = '''
import metaray
from metaray.config import replace

raise SystemExit("this ran")

def one() -> Experiment:
    """The first line.

    Not this one.
    """
    return something()

def two() -> "metaray.experiment.Experiment": ...

def three() -> metaray.tuning.search.Search:
    """A search."""

def four(size: int = 4, *, more=1) -> Experiment: ...

def derived():
    base = one()
    return replace(base, num_steps=3)

def made():
    if True:
        return Search(experiment=one(), space={})

def needs(size: int) -> Experiment: ...
def needs_named(*, size: int) -> Experiment: ...
def _hidden() -> Experiment: ...
def other() -> int: ...
def helper():
    def inner():
        return Experiment()
    return inner
class Box:
    def method() -> Experiment: ...
def again() -> int: ...
def again() -> Experiment: ...
'''


def test_what_is_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.py"
    file.write_text(FILE)
    found = find_recipes([str(file)])
    assert found.unread == []
    assert found.recipes == [
        RecipeFound(f"{file}:one", "experiment", "The first line."),
        RecipeFound(f"{file}:two", "experiment", ""),
        RecipeFound(f"{file}:three", "search", "A search."),
        RecipeFound(f"{file}:four", "experiment", ""),
        RecipeFound(f"{file}:derived", "experiment", ""),
        RecipeFound(f"{file}:made", "search", ""),
        RecipeFound(f"{file}:again", "experiment", ""),
    ]


def test_jobs_and_the_working_directory_are_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs" / "deeper").mkdir(parents=True)
    for name in ("here.py", "jobs/there.py", "jobs/deeper/no.py", "jobs/no.txt"):
        (tmp_path / name).write_text("def recipe() -> Experiment: ...\n")
    assert [one.recipe for one in find_recipes().recipes] == ["jobs/there.py:recipe", "here.py:recipe"]
    assert [one.recipe for one in find_recipes(["jobs/deeper"]).recipes] == ["jobs/deeper/no.py:recipe"]


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def good() -> Experiment: ...\ndef bad(:\n")
    (tmp_path / "b.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "c.py").write_bytes(b"\0")
    (tmp_path / "d.py").write_text("def good() -> Experiment: ...\n")
    found = find_recipes([str(tmp_path)])
    assert [one.recipe for one in found.recipes] == [f"{tmp_path}/d.py:good"]
    assert [text.partition(" is no valid Python: ")[0] for text in found.unread] == [
        f"{tmp_path}/a.py:2",
        f"{tmp_path}/b.py:1",
        f"{tmp_path}/c.py",
    ]


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match="x.txt' is no Python file .*: name a folder, or a file as path/to/x.py"):
        find_recipes([str(tmp_path / "x.txt")])
    with pytest.raises(InputError, match="'nowhere' does not exist"):
        find_recipes(["nowhere"])


@pytest.mark.parametrize("file", sorted(JOBS.glob("*.py")), ids=lambda path: path.name)
def test_all_of_this_project_are_found(file: Path) -> None:
    module = importlib.import_module(f"jobs.{file.stem}")
    runnable = {
        name
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {one.recipe.rpartition(":")[2] for one in find_recipes([str(file)]).recipes} == runnable
