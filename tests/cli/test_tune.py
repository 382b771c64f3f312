"""What is wrong with a `metaray tune`, before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Experiment

SPACE = "algorithm.inner_lr=loguniform(1e-3,1)"


@pytest.fixture
def recipe(make_experiment: Callable[..., Experiment], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(make_experiment().to_json())
    return path


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--trials", "4"], "name at least one field to search"),
        (["--search", SPACE], "say how many trials"),
        (["--search", "algorithm.inner_lt=loguniform(1e-3,1)", "--trials", "2"], "Did you mean 'algorithm.inner_lr'?"),
        (["--search", "algorithm.inner_lr=logunifrom(1e-3,1)", "--trials", "2"], "Did you mean 'loguniform'?"),
        (["--search", "algorithm.inner_lr=__import__('os').system('x')", "--trials", "2"], "algorithm.inner_lr"),
        (["--search", "algorithm.inner_lr=0.1", "--trials", "2"], "is a single value"),
        (["--search", "algorithm.inner_lr=uniform(-1,1)", "--trials", "2"], "with algorithm.inner_lr=-1.0"),
        (["--search", "evaluation.seed=choice(1,2)", "--trials", "2"], "cannot be searched"),
        (["--search", SPACE, "--set", "algorithm.inner_lr=0.1", "--trials", "2"], "leave one out"),
        (["--search", SPACE, "--trials", "2", "--searcher", "bayes"], "searcher"),
        (["--search", SPACE, "--trials", "2", "--grace", "1000"], "more than a whole trial sees (24)"),
        (["--search", SPACE, "--trials", "4", "--searcher", "pbt", "--scheduler", "asha"], "pbt replaces"),
        (["--search", SPACE, "--trials", "2", "--apply", "/"], "can't write there, it is a folder"),
        (["--search", SPACE, "--trials", "2", "--run", "a/b"], "search name 'a/b'"),
        (["--search", SPACE, "--trials", "2", "--link-encoder"], "--link-encoder: there is nothing to link"),
        (["--search", SPACE, "--trials", "2", "--link-encoder", "--no-register"], "leave out --no-register"),
        (["--search", SPACE, "--trials", "2", "--tracking-uri", "mlruns"], "no longer writes runs to folders"),
    ],
)
def test_wrong_input(arguments: list[str], wanted: str, recipe: Path, command: Any, tmp_path: Path) -> None:
    code, out, err = command("tune", recipe, "--storage", tmp_path / "runs", *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and wanted in err and "Traceback" not in err
    assert not list((tmp_path / "runs").glob("*")) if (tmp_path / "runs").exists() else True


def test_without_a_recipe_a_search_must_be_there(command: Any, tmp_path: Path) -> None:
    assert "give a RECIPE" in command("tune").err
    assert "unknown search" in command("tune", "--run", "mine", "--storage", tmp_path).err
    ended = command("tune", "--run", "mine", "--storage", tmp_path, "--trials", 3)
    assert ended.code == 2 and "leave other options out" in ended.err


def test_train_refuses_a_search(command: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.py").write_text(
        "from metaray.tuning.search import Search\nfrom metaray.experiment.recipes import load_recipe\n\n"
        "def search():\n"
        "    space = {'algorithm.inner_lr': 'loguniform(0.1, 1)'}\n"
        "    return Search(experiment=load_recipe('tiny.json'), space=space, trials=2)\n"
    )
    monkeypatch.chdir(tmp_path)
    ended = command("train", "recipe.py:search")
    assert ended.code == 2 and "returned Search, not an Experiment; `metaray tune` takes it" in ended.err
