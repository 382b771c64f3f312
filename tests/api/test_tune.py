"""Searches from the command line to MLflow, on the session's Ray cluster of four declared CPUs."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import metaray
from metaray.api.search_options import SearchOptions
from metaray.api.tune import run_search, stored_search
from metaray.config import replace
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.models import Encoder
from metaray.records.storage import Storage
from metaray.tuning.capacity import Shares
from metaray.tuning.listener import SearchListener
from metaray.tuning.trial import Trial
from tests.models.encoders.test_encoder import experiment as on_texts
from tests.models.encoders.tiny import bert_folder
from tests.training.whole_runs import Memory, train_in_process
from tests.tuning.small import children, make_search

pytestmark = pytest.mark.ray


class Heard(SearchListener):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.news: list[tuple[int, str, int]] = []

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        self.news.append((changed.number, changed.status, len(changed.curve)))

    def on_note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def options(tmp_path: Path, database: str, ray_cluster: None) -> Callable[..., SearchOptions]:
    def make(**changes: Any) -> SearchOptions:
        places = {"storage": str(tmp_path / "runs"), "tracking_uri": database, "device": "cpu"}
        return SearchOptions(**{"name": "search", "register": False, **places, **changes})

    return make


def test_a_search_from_the_command_line(
    command: Callable[..., Any],
    make_experiment: Callable[..., Experiment],
    database: str,
    tmp_path: Path,
    ray_cluster: None,
) -> None:
    recipe, applied = tmp_path / "tiny.json", tmp_path / "best.json"
    recipe.write_text(make_experiment(name="searched").to_json())
    places = ("--storage", tmp_path / "runs", "--tracking-uri", database, "--run", "mine")
    space = "algorithm.inner_lr=loguniform(1e-3,1)"
    asked = ("--trials", 3, "--scheduler", "none", "--concurrent", 2, "--promote")
    line = ("tune", recipe, "--search", space, *asked, "--apply", applied, *places)
    code, out, err = command(*line)
    assert code == 0, err
    assert "3 trials of 1 CPUs; the cluster has 4 CPUs: 2 at once, in at most 2 rounds" in err
    assert "winner: trial-000" in out and "meta-test accuracy: " in out
    assert "registered: models:/searched/1 (@champion)" in out

    folder = tmp_path / "runs" / "mine"
    rows = json.loads((folder / "trials.json").read_text())
    assert [row["status"] for row in rows] == ["finished"] * 3
    assert pq.read_table(folder / "trials.parquet").num_rows == 3
    pictures = sorted(path.name for path in (folder / "figures").iterdir())
    assert pictures == ["accuracy-by-algorithm.inner_lr.png", "curves.png"]

    # The winner's file gives the winner's parameters.
    experiment = Experiment.from_json(applied.read_text())
    again = train_in_process(experiment, Storage(str(tmp_path / "again")), Memory(), device="cpu")
    assert f"parameters sha256: {again.parameters_sha256}" in out

    from metaray.tracking.client import open_client
    from metaray.tracking.registry import find_version
    from metaray.tracking.server import MlflowServer

    tags = find_version(MlflowServer(database), "searched", 1).tags
    assert tags["search"] == "mine" and tags["search.space"] == "algorithm.inner_lr=loguniform(0.001, 1.0)"
    runs = children(database, tags["search.run_id"])
    assert [run.data.tags["search.status"] for run in runs] == ["finished"] * 3
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert [float(run.data.params["algorithm.inner_lr"]) for run in runs] == [
        row["settings"]["algorithm.inner_lr"] for row in rows
    ]
    history = open_client(database).get_metric_history(runs[0].info.run_id, "val/accuracy")
    assert [metric.step for metric in history] == [2, 4, 6]
    parent = {file.path for file in open_client(database).list_artifacts(tags["search.run_id"])}
    assert parent >= {"trials.json", "trials.parquet", "winner.json", "curves.png", "experiment.json"}

    # The same again, and by its name alone: nothing is trained, registered or logged twice.
    for same in (line, ("tune", *places)):
        code, shown, err = command(*same)
        assert code == 0, err
        assert [text for text in shown.splitlines() if "applied" not in text] == [
            text for text in out.splitlines() if "applied" not in text
        ]
    assert "as it was begun: --concurrent 2 --promote\n" in err
    assert len(children(database, tags["search.run_id"])) == 3

    code, out, err = command(*line, "--seed", 1)
    assert code == 2 and "search.seed: 0 -> 1".removeprefix("search.") in err


def test_a_trial_that_diverges_does_not_end_the_search(
    make_experiment: Callable[..., Experiment], options: Callable[..., SearchOptions], database: str
) -> None:
    space = {"algorithm.inner_lr": "choice(0.1, 1e30)", "algorithm.inner_steps": "choice(5)"}
    search = make_search(make_experiment(name="diverging"), space, searcher="grid", trials=None, scheduler="none")
    report = run_search(search, options(), Heard())
    assert [trial.status for trial in report.trials] == ["finished", "failed"]
    assert "not finite" in report.trials[1].why
    good, bad = children(database, report.tracking_run)
    assert (bad.info.status, bad.data.tags["search.status"]) == ("FAILED", "failed")
    assert bad.data.tags["search.why"] == report.trials[1].why
    assert good.data.tags["search.winner"] == "true"
    assert report.trials[1].why in (Path(report.storage) / "trial-0001" / "failure.txt").read_text()


@pytest.mark.slow
def test_a_trial_whose_process_dies_does_not_end_the_search(
    make_experiment: Callable[..., Experiment],
    options: Callable[..., SearchOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "driver").write_text(str(os.getpid()))
    monkeypatch.chdir(tmp_path)
    algorithm = {"kind": "tests.api.dying:Dying", "inner_lr": 0.1}
    space = {"algorithm.inner_lr": "choice(0.1, 2.0)"}
    search = make_search(make_experiment(algorithm=algorithm), space, searcher="grid", trials=None, scheduler="none")
    report = run_search(search, options(shares=Shares(concurrent=1)), Heard())
    assert [trial.status for trial in report.trials] == ["finished", "failed"]
    assert "its process died 3 times" in report.trials[1].why
    assert (tmp_path / "deaths").read_text() == "xxx"


def test_a_search_of_which_nothing_comes_fails(
    make_experiment: Callable[..., Experiment],
    options: Callable[..., SearchOptions],
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = {"algorithm.inner_lr": "choice(1e30)"}
    capsys.readouterr()
    search = make_search(make_experiment(name="hopeless"), space, searcher="grid", trials=None, scheduler="none")
    with pytest.raises(RunFailed, match=r"none of 1 trials came to an evaluation: trial-0000: .*not finite"):
        run_search(search, options(), Heard())
    assert capsys.readouterr().out == ""  # Tune must not print among what `--json` prints


@pytest.mark.slow
def test_what_was_stopped_goes_on(
    make_experiment: Callable[..., Experiment], options: Callable[..., SearchOptions], database: str
) -> None:
    search = make_search(make_experiment(num_steps=40), trials=4, scheduler="none")
    heard = Heard()
    with pytest.raises(RunStopped, match=r"`metaray tune --run search --storage .*` goes on"):
        run_search(search, options(), heard, should_stop=lambda: any(s == "finished" for _, s, _ in heard.news))
    first = {number for number, status, _ in heard.news if status == "finished"}
    heard = Heard()
    report = run_search(search, options(), heard)
    assert [trial.status for trial in report.trials] == ["finished"] * 4
    assert not first & {number for number, _, _ in heard.news}
    alone = run_search(search, options(name="other"), Heard())
    assert [trial.curve for trial in alone.trials] == [trial.curve for trial in report.trials]
    assert alone.winner.number == report.winner.number
    assert len(children(database, report.tracking_run)) == 4


@pytest.mark.slow
def test_a_population_is_replayed_by_its_winner(
    make_waves: Callable[..., Experiment], options: Callable[..., SearchOptions], tmp_path: Path
) -> None:
    space = {"algorithm.inner_lr": "loguniform(1e-3, 1e-1)"}
    fields = {"searcher": "pbt", "scheduler": "none", "trials": 4, "generations": 3}
    report = run_search(make_search(make_waves(num_steps=12), space, **fields), options(), Heard())
    assert len(report.trials) == 6 and sum(trial.status == "finished" for trial in report.trials) == 4
    copies = [trial for trial in report.trials if trial.inherited]
    assert all(len(trial.settings["algorithm.inner_lr"]["steps"]) > 1 for trial in copies)
    again = train_in_process(report.experiment, Storage(str(tmp_path / "again")), Memory(), device="cpu")
    assert again.parameters_sha256 == report.report.result.parameters_sha256
    assert again.meta_val == report.report.result.meta_val
    assert (Path(report.storage) / "figures" / "schedule-algorithm.inner_lr.png").exists()


def test_what_does_not_fit_is_refused_before_anything_starts(
    make_experiment: Callable[..., Experiment], options: Callable[..., SearchOptions], tmp_path: Path
) -> None:
    search = make_search(make_experiment(), trials=2)
    with pytest.raises(InputError, match=r"2 trials x 3 workers x 1 CPUs = 6 CPUs, but the cluster has 4 CPUs"):
        run_search(search, options(shares=Shares(workers=3)), Heard())
    assert not (tmp_path / "runs" / "search").exists()


@pytest.mark.slow
def test_a_winner_shares_the_encoder_of_all_runs(
    options: Callable[..., SearchOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights lie in the storage of all runs, not in the folder of the search, and are asked for before it."""
    encoder = Encoder(path=bert_folder(tmp_path / "encoder"))
    experiment = replace(on_texts(str(tmp_path / "texts.arrow"), encoder), name="linked")
    places = options(name="linked", register=True, link_encoder=True)
    frozen_or_not = {"model.frozen": "choice(true, false)"}
    with pytest.raises(InputError, match="nothing to link"):
        run_search(make_search(experiment, frozen_or_not, trials=2, scheduler="none"), places, Heard())
    report = run_search(make_search(experiment, trials=2, scheduler="none"), places, Heard())
    assert report.report.version is not None
    shutil.rmtree(tmp_path / "encoder")
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "another node"))
    learner = metaray.load(report.report.version.uri, tracking_uri=places.tracking_uri)
    (blob,) = tmp_path.glob("runs/**/blobs/*")
    assert learner.link is not None and learner.link.at == str(blob) == str(tmp_path / "runs" / "blobs" / blob.name)


@pytest.mark.slow
def test_trials_of_two_workers_give_the_bits_of_one_process(
    make_experiment: Callable[..., Experiment], options: Callable[..., SearchOptions]
) -> None:
    search = make_search(make_experiment(), trials=2, scheduler="none")
    heard = Heard()
    report = run_search(search, options(shares=Shares(workers=2)), heard)
    assert heard.notes[0].startswith(
        "2 trials of 2 workers x 1 CPUs, 2 samplers each; the cluster has 4 CPUs: 2 at once"
    )
    alone = run_search(search, options(name="alone"), Heard())
    assert [trial.curve for trial in report.trials] == [trial.curve for trial in alone.trials]
    assert report.report.result.parameters_sha256 == alone.report.result.parameters_sha256


def test_a_search_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown search in .* 'mine'"):
        stored_search(str(tmp_path), "mine")
