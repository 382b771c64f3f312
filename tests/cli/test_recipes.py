"""`metaray recipes` and `metaray show`, in this process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.cli import amounts
from metaray.cli import recipes as module
from metaray.experiment.experiment import Experiment
from tests.patience import PATIENT_S

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def tiny(make_experiment: MakeExperiment, tmp_path: Path) -> Path:
    (tmp_path / "tiny.json").write_text(make_experiment().to_json())
    return tmp_path / "tiny.json"


def test_recipes_are_listed(command: Any, tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text('def a() -> Experiment:\n    """What it is."""\ndef longer() -> Search: ...\n')
    (tmp_path / "s.py").write_text("def (:\n")
    code, out, err = command("recipes", tmp_path)
    assert (code, out.splitlines()) == (0, [f"{tmp_path}/r.py:a       What it is.", f"{tmp_path}/r.py:longer"])
    assert err == f"note: {tmp_path}/s.py:1 is no valid Python: invalid syntax\n"
    rows = json.loads(command("recipes", tmp_path / "r.py", "--json").out)
    assert [(row["kind"], row["summary"]) for row in rows] == [("experiment", "What it is."), ("search", "")]


def test_where_there_are_no_recipes(command: Any, tmp_path: Path) -> None:
    code, out, err = command("recipes", tmp_path)
    assert (code, out) == (0, "")
    assert err == f"no recipes in {tmp_path}; `metaray init FOLDER` writes a project that has some\n"
    assert command("recipes", tmp_path, "--json").out == "[]\n"


def test_a_listing_fits_a_terminal(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "terminal_width", lambda: 80)
    lines = command("recipes", "jobs").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("jobs/") for line in lines) == len(json.loads(command("recipes", "jobs", "--json").out))


def test_a_recipe_is_shown(tiny: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amounts, "terminal_width", lambda: 80)
    code, out, err = command("show", tiny, "--set", "meta_batch_size=5")
    assert (code, err) == (0, "")
    told = " ".join(out.split())
    for text in (
        "trained on: 3-way 1-shot, 2 queries a class",
        "judged on: 3-way 1-shot, 2 queries a class, transductive batch norm",
        "episodes: 30 to train on, 6 steps of 5",
        "judging: 6 episodes of meta-val every 2 steps and at the end, then 8 of meta-test",
        "a worker on a CPU (1 episode at a time), ",
        "checks: passed, on the CPU",
        "meta_batch_size=5",
        "# inner_steps: Number of gradient steps on the support set.",
    ):
        assert text in told, text
    facts = out.partition("\nKeys and values")[0]
    assert max(map(len, facts.splitlines())) <= 80
    keys = command("train", tiny, "--set", "meta_batch_size=5", "--keys").out.splitlines()
    assert out.splitlines()[-len(keys) :] == keys


def test_a_recipe_is_shown_as_json(tiny: Path, command: Any, make_experiment: MakeExperiment) -> None:
    code, out, _ = command("show", tiny, "--json", "--set", "seed=3")
    shown = json.loads(out)
    assert code == 0 and shown["experiment"] == make_experiment(seed=3).model_dump(mode="json")
    assert shown["checks"] == {"passed": True, "refusal": None, "notes": []} and shown["search"] is None
    assert shown["arithmetic"]["train_episodes"] == make_experiment().num_steps * make_experiment().meta_batch_size
    assert shown["arithmetic"]["worker_bytes"].keys() == {"cpu", "cuda"}
    assert {
        "key": "seed",
        "value": "3",
        "meaning": "Seed of the initial weights and of the training episodes.",
    } in shown["keys"]


def test_what_the_checks_refuse_ends_it_after_all_that_is_known(tiny: Path, command: Any) -> None:
    code, out, err = command("show", tiny, "--set", "episodes.ways=500", "--set", "evaluation.episodes.ways=500")
    assert code == 2 and err.startswith("error: ") and "500 ways" in err
    assert "episodes.ways=500" in out.splitlines() and "meta-parameters" not in out and "passed" not in out
    code, out, err = command(
        "show", tiny, "--set", "episodes.ways=500", "--set", "evaluation.episodes.ways=500", "--json"
    )
    shown = json.loads(out)
    assert code == 2 and shown["arithmetic"] is None
    assert f"error: {shown['checks']['refusal']}\n" == err


def test_a_wrong_recipe_shows_nothing(tiny: Path, command: Any) -> None:
    code, out, err = command("show", tiny, "--set", "sed=3")
    assert (code, out) == (2, "") and "unknown key 'sed'. Did you mean 'seed'?" in err


def test_a_search_is_shown_with_its_experiment(command: Any, tmp_path: Path) -> None:
    (tmp_path / "searches.py").write_text(
        "from jobs.sinusoid import maml\nfrom metaray.tuning.search import Search\n"
        "def found() -> Search:\n"
        "    return Search(experiment=maml(), space={'algorithm.inner_lr': 'loguniform(0.001, 1)'}, trials=3)\n"
    )
    code, out, err = command("show", f"{tmp_path}/searches.py:found", "--set", "num_steps=20")
    assert (code, err) == (0, "")
    assert "search: 3 trials by random stopped early by asha over algorithm.inner_lr=loguniform(0.001, 1.0)" in out
    assert "regression tasks of 1 value, some 10^19 tasks in each meta-split" in out and "num_steps=20" in out
    shown = json.loads(command("show", f"{tmp_path}/searches.py:found", "--json").out)
    assert shown["search"]["space"] == {"algorithm.inner_lr": "loguniform(0.001, 1.0)"}
    assert "experiment" not in shown["search"]


def test_a_listing_imports_nothing_heavy() -> None:
    script = (
        "import sys; from metaray.cli import main; main(['recipes', 'jobs'])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'numpy', 'pyarrow'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENT_S)
    assert done.stdout.splitlines()[-1] == ""
