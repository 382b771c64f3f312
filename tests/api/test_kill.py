"""A search whose driver is killed in the middle, and goes on: by real commands and real SIGKILLs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Evaluation, Experiment
from tests.patience import PATIENT_S, wait_until
from tests.tuning.small import children

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRIALS = 6
LOG = "tune.log"


def tune(folder: Path, recipe: Path, name: str, *options: str) -> "subprocess.Popen[bytes]":
    """`metaray tune` as a user starts it; without options it goes on with the search of that name."""
    begun = (recipe, "--search", "algorithm.inner_lr=loguniform(1e-3,1)", "--trials", TRIALS, *options)
    line = [sys.executable, "-m", "metaray", "tune", *(begun if options else ()), "--run", name]
    places = ["--storage", folder / "runs", "--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--no-register"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / LOG).open("w") as log:  # no pipe: Ray's processes would keep it open after a kill
        command = list(map(str, [*line, *places]))
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def finished(folder: Path, process: "subprocess.Popen[bytes]") -> str:
    code = process.wait(timeout=PATIENT_S)
    out = (folder / LOG).read_text()
    assert code == 0, out
    return out


def kill_when(process: "subprocess.Popen[bytes]", done: Callable[[], bool]) -> None:
    wait_until(lambda: process.poll() is not None or done(), every_s=0.05)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "runs" / name / "trials.json").read_text())
    return found


@pytest.fixture(scope="module")
def place(make_experiment: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and in it a recipe whose trials take seconds, each judged nine times."""
    folder = tmp_path_factory.mktemp("killed")
    recipe = folder / "tiny.json"
    plan = Evaluation(every=20, val_episodes=20, test_episodes=8)
    recipe.write_text(make_experiment(num_steps=180, evaluation=plan).to_json())
    return folder, recipe


def ended(folder: Path, name: str) -> int:
    return len(list((folder / "runs" / name).glob("trial-*/outcome.json")))


def saved(folder: Path, name: str) -> int:
    return len(list((folder / "runs" / name).glob("trial-*/checkpoints/*/manifest.json")))


@pytest.mark.parametrize("searcher", ["random", "grid"])
def test_random_and_grid_searches_end_as_undisturbed(place: tuple[Path, Path], searcher: str) -> None:
    folder, recipe = place
    options = ("--searcher", searcher, "--scheduler", "none")
    finished(folder, tune(folder, recipe, f"{searcher}-alone", *options))
    name = f"{searcher}-killed"
    for least in (1, 3):
        process = tune(folder, recipe, name, *options)

        def far_enough(least: int = least) -> bool:
            return ended(folder, name) >= least and saved(folder, name) > 2 * least

        kill_when(process, far_enough)
        before = {path: path.stat().st_mtime_ns for path in (folder / "runs" / name).glob("trial-*/outcome.json")}
    out = finished(folder, tune(folder, recipe, name))
    assert {path: path.stat().st_mtime_ns for path in before} == before  # what had ended was left alone
    alone, killed = rows(folder, f"{searcher}-alone"), rows(folder, name)
    for one, other in zip(alone, killed, strict=True):
        for key in ("name", "status", "settings", "value", "winner", "curve"):
            assert one[key] == other[key]
    assert next(row["name"] for row in alone if row["winner"]) in out
    _same_in_mlflow(folder, name, killed)


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_with_asha_nothing_is_lost_or_done_twice(place: tuple[Path, Path], searcher: str) -> None:
    """Each trial's curve is the beginning of what its settings give undisturbed, and ends where MLflow has it end."""
    folder, recipe = place
    name = f"asha-{searcher}"
    process = tune(folder, recipe, name, "--searcher", searcher, "--scheduler", "asha")
    kill_when(process, lambda: ended(folder, name) >= 2 and saved(folder, name) >= 4)
    proposed = {path: path.read_text() for path in (folder / "runs" / name).glob("trial-*/trial.json")}
    finished(folder, tune(folder, recipe, name))
    assert {path: path.read_text() for path in proposed} == proposed
    found = rows(folder, name)
    assert [row["number"] for row in found] == list(range(TRIALS))
    assert all(row["status"] in ("finished", "stopped early") for row in found)
    _same_in_mlflow(folder, name, found)

    from metaray.records.storage import Storage
    from metaray.tuning.ledger import curve_of
    from metaray.tuning.trial import Objective
    from tests.training.whole_runs import Memory, train_part_in_process

    for row in found:
        tree = json.loads((folder / "runs" / name / row["name"] / "trial.json").read_text())
        experiment = Experiment.parse(tree["experiment"], where="test")
        alone = Storage(str(folder / "alone" / name / row["name"]))
        train_part_in_process(experiment, alone, Memory(), device="cpu")
        whole = curve_of(alone, experiment, Objective("accuracy", highest=True))
        mine = [(point["step"], point["value"]) for point in row["curve"]]
        assert mine == [(judged.step, judged.value) for judged in whole][: len(mine)]


def _same_in_mlflow(folder: Path, name: str, found: list[dict[str, Any]]) -> None:
    """One run a trial, with each of its evaluations once."""
    from metaray.tracking.client import open_client

    uri = f"sqlite:///{folder}/mlflow.db"
    client = open_client(uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    parents = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    assert len(parents) == 1
    runs = children(uri, parents[0].info.run_id)
    assert [run.data.tags["search.trial"] for run in runs] == [str(row["number"]) for row in found]
    assert [run.data.tags["search.status"] for run in runs] == [row["status"] for row in found]
    for run, row in zip(runs, found, strict=True):
        history = client.get_metric_history(run.info.run_id, "val/accuracy")
        assert [(m.step, m.value) for m in history] == [(point["step"], point["value"]) for point in row["curve"]]
