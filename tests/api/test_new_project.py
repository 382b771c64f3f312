"""A project of one's own: whole or not at all, and it works as it is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaray.api import new_project as module
from metaray.api.new_project import FILES, new_project
from metaray.api.recipe_files import find_recipes
from metaray.errors import InputError
from metaray.experiment.recipes import call_recipe, load_recipe
from metaray.training.checks.preflight import preflight
from metaray.tuning.search import Search
from tests.patience import PATIENT_S
from tests.wheel import built

ROOT = Path(__file__).parents[2]


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_all_of_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "my-letters"
    assert new_project(folder) == list(FILES) and listed(folder) == sorted(FILES)
    assert listed(tmp_path) == [f"deep/my-letters/{path}" for path in sorted(FILES)]
    assert (folder / "README.md").read_text().startswith("# my-letters\n")
    assert "$" not in "".join((folder / path).read_text() for path in FILES)
    templates = ROOT / "platform/metaray/api/project_files"
    assert listed(templates) == sorted(FILES.values()), "none is left out"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    new_project(tmp_path / "project", "mine")
    yield tmp_path / "project"
    for name in ("models", "recipes"):
        sys.modules.pop(name, None)


def test_its_recipes_are_valid(project: Path) -> None:
    experiment = load_recipe(f"{project}/recipes.py:letters")
    assert experiment.name == "mine"
    preflight(experiment)
    search = call_recipe(f"{project}/recipes.py:search")[0]
    assert isinstance(search, Search)
    search.check()
    found = find_recipes([str(project)]).recipes
    assert [(one.recipe, one.kind) for one in found] == [
        (f"{project}/recipes.py:letters", "experiment"),
        (f"{project}/recipes.py:search", "search"),
    ]


def test_its_code_is_clean(project: Path) -> None:
    for command in (["check", "--select", "E,F,W,I,B,UP,D100,D101,D102"], ["format", "--check"]):
        arguments = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(project)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=PATIENT_S)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_own_tests_pass(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENT_S,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).write_text("mine")
    before = listed(tmp_path)
    with pytest.raises(
        InputError, match="is not empty: it holds a, b, c, d, e and 2 more. Name a new folder, or an empty"
    ):
        new_project(tmp_path)
    with pytest.raises(InputError, match="a' is there already, and no folder"):
        new_project(tmp_path / "a")
    assert listed(tmp_path) == before


def test_an_empty_folder_and_a_fresh_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    assert new_project(Path(), "mine") == list(FILES)
    assert listed(tmp_path) == sorted(FILES) and Path.cwd() == tmp_path


def test_names(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="'my letters': use letters.*for instance 'my-letters'. Give another with --name"
    ):
        new_project(tmp_path / "my letters")
    with pytest.raises(InputError, match="^--name 'a/b': use letters"):
        new_project(tmp_path / "x", "a/b")
    assert listed(tmp_path) == [] and list(tmp_path.iterdir()) == []
    new_project(tmp_path / "my letters", "letters")
    assert 'name="letters"' in (tmp_path / "my letters/recipes.py").read_text()


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("written", range(len(FILES)))
def test_a_full_disk_leaves_nothing(there: bool, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep" / "project"
    if there:
        folder.mkdir(parents=True)
    write, left = Path.write_text, [written]

    def full(path: Path, *arguments: str, **options: str) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="cannot be written: .*No space left"):
        new_project(folder)
    assert list(tmp_path.rglob("*")) == ([tmp_path / "deep", folder] if there else [])


def test_what_comes_there_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move = module._move

    def late(beside: Path, folder: Path) -> None:
        (folder / "recipes.py").write_text("mine")
        move(beside, folder)

    monkeypatch.setattr(module, "_move", late)
    with pytest.raises(InputError, match="recipes.py has come there meanwhile"):
        new_project(tmp_path, "mine")
    assert listed(tmp_path) == ["recipes.py"] and (tmp_path / "recipes.py").read_text() == "mine"


@pytest.mark.slow
def test_a_wheel_has_its_files(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(built(tmp_path)) as archive:
        names = set(archive.namelist())
    assert {f"metaray/api/project_files/{template}" for template in FILES.values()} <= names
