"""Reports of what was really trained: their figures are those of the record, and what lacks is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaray.algorithms import CNP
from metaray.api.report import NotLogged, ReportFile, report
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.records.checked_json import write_record
from metaray.records.estimate import estimate
from metaray.records.events import Fanout
from metaray.records.result import Result
from metaray.records.run import RECORD_FILE, Run
from metaray.records.storage import Storage
from metaray.reports.measuring import measure
from metaray.training.evaluation import evaluate_learner
from metaray.tuning.ledger import open_ledger
from metaray.tuning.proposers import Work
from tests.reports.html_page import Seen, seen
from tests.training.whole_runs import train_in_process
from tests.tuning.small import make_search, pretend

CPU = torch.device("cpu")
EPISODES = 8
MakeExperiment = Callable[..., Experiment]


@pytest.fixture(scope="module")
def written(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> ReportFile:
    """The report of the session's first run."""
    out = tmp_path_factory.mktemp("report") / "first.html"
    where = {"storage": str(trained.storage), "tracking_uri": trained.uri}
    return report("first", out=out, episodes=EPISODES, progress=False, **where)


@pytest.fixture
def make_waves_run(make_waves: MakeExperiment, tmp_path: Path) -> Callable[..., str]:
    """Trains a run called "waves" of regression tasks in a folder, which is returned."""

    def make(**changes: Any) -> str:
        train_in_process(make_waves(**changes), Storage(str(tmp_path / "runs")).child("waves"), Fanout([]))
        return str(tmp_path / "runs")

    return make


def page_of(name: str, storage: object, tmp_path: Path, **options: Any) -> Seen:
    given: dict[str, Any] = {"episodes": EPISODES, "log": False, "progress": False, **options}
    return seen(report(name, out=tmp_path / "page.html", storage=str(storage), **given).path.read_text())


def test_the_figures_are_those_of_the_record(written: ReportFile, trained: Any) -> None:
    found = seen(written.path.read_text())
    result = Result.from_json((trained.storage / "first" / "result.json").read_bytes())
    assert result.before_adaptation is not None
    for one in (result.meta_test, result.before_adaptation, result.before_training, result.meta_val):
        assert f"{one.mean:.4f} \u00b1 {one.half_width:.4f} {one.episodes}" in found.text
    assert f"nearest neighbour {result.baselines['nearest_neighbor'].score.mean:.4f}" in found.text
    for told in (result.protocol, "inner_lr 0.1, ", "12 of meta-train, 8 of meta-val, 8 of meta-test"):
        assert told in found.text, told
    command = Run("first", Storage(str(trained.storage)).child("first")).record.tags["command"]
    assert " ".join(command.split()) in found.text
    assert {f"class{number}" for number in range(20, 28)} <= set(found.text.split())
    assert "class \u2192 taken for" in found.text or "No query was mistaken" in found.text
    assert found.tags.count("img") == 2 * 3 * (1 + 2), "two tasks of 3 ways, 1 shot, 2 queries"


def test_it_is_an_artifact_of_the_run(written: ReportFile, trained: Any) -> None:
    from metaray.tracking.server import MlflowServer

    run = Run("first", Storage(str(trained.storage)).child("first"))
    assert written.tracking_run == run.tracking_run and "report.html of MLflow run" in str(written)
    place = MlflowServer.of(trained.uri).client.get_run(str(written.tracking_run)).info.artifact_uri
    assert (Path(place.removeprefix("file://")) / "report.html").read_bytes() == written.path.read_bytes()


def test_what_is_measured_is_what_evaluating_says(trained: Any) -> None:
    run = Run("first", Storage(str(trained.storage)).child("first"))
    learner, experiment = load_learner(trained.storage / "first" / "learner"), run.experiment()
    found = measure(learner, experiment, "meta-test", EPISODES, device=CPU, show=lambda what, done, of: None)
    scores = evaluate_learner(learner, experiment, "meta-test", episodes=range(EPISODES)).score
    assert found.score == pytest.approx(estimate(scores)) and found.classes is not None
    assert found.score.mean == pytest.approx(run.result.meta_test.mean), "these are all of its meta-test episodes"
    right, asked = (sum(getattr(one, name) for one in found.classes.scores) for name in ("right", "asked"))
    assert right / asked == pytest.approx(scores.mean()) and asked == EPISODES * 6
    assert sum(one.predictions for one in found.classes.calibration.bins) == asked
    steps = {point.at: point.score.mean for point in found.inner_steps}
    none = evaluate_learner(learner, experiment, "meta-test", episodes=range(found.few), inner_steps=0).score
    assert list(steps) == [0, 1, 2, 5] and found.judged_steps == 1 and steps[0] == pytest.approx(none.mean())
    taken = evaluate_learner(learner, experiment, "meta-test", episodes=range(found.few), inner_steps=1).score
    assert steps[1] == pytest.approx(taken.mean()), "the judged point, which is not computed again"
    shots = {point.at: point for point in found.shots}
    assert list(shots) == [1, 2, 5, 10] and shots[1].score.mean == pytest.approx(steps[1])
    nearest = evaluate_learner(learner.baseline("nearest_neighbor"), experiment, "meta-test", episodes=range(found.few))
    assert shots[1].baselines["nearest_neighbor"].mean == pytest.approx(nearest.score.mean())


def test_a_registered_learner_has_the_record_of_its_run(trained: Any, tmp_path: Path) -> None:
    where: dict[str, Any] = {"tracking_uri": trained.uri, "episodes": 0}
    found = page_of("models:/tiny@champion", "runs", tmp_path, **where)
    result = Result.from_json((trained.storage / "first" / "result.json").read_bytes())
    assert f"{result.meta_test.mean:.4f} \u00b1 {result.meta_test.half_width:.4f} 8" in found.text
    assert "version 1 of tiny, @champion" in found.text and "outer step" in found.text
    again = f"metaray report models:/tiny@champion --tracking-uri {trained.uri}"
    assert f"asked for without judging the learner again. {again}" in found.text


def test_a_learner_in_a_folder_is_judged(trained: Any, tmp_path: Path) -> None:
    folder = trained.storage / "first" / "learner"
    scores = evaluate_learner(load_learner(folder), Run("first", Storage(str(folder.parent))).experiment(), "meta-val")
    found = page_of(str(folder), "runs", tmp_path, part="meta-val", episodes=6)
    assert f"meta-val accuracy {scores.estimate.mean:.4f} \u00b1" in found.text and "keeps no curves" in found.text


def test_values_have_errors_fits_and_their_own_intervals(make_waves_run: Callable[..., str], tmp_path: Path) -> None:
    storage = make_waves_run(
        algorithm=CNP(), num_steps=2, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=4)
    )
    found = page_of("waves", storage, tmp_path)
    for told in ("mean absolute error", "true values inside", "meta-test, task 3, mse", "takes no inner steps"):
        assert told in found.text
    assert "taken for" not in found.text and "calibration error" not in found.text
    assert "algorithm cnp" in found.text, "as the learner says, since run.json is not there"


def test_a_run_without_a_result_is_told_as_far_as_it_went(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    run = Run("begun", Storage(str(tmp_path / "runs")).child("begun"))
    run.begin(make_experiment(), tags={"command": "metaray train tiny.json --run begun"})
    found = page_of("begun", tmp_path / "runs", tmp_path)
    goes_on = "The run has no result yet; the same command goes on with it. metaray train tiny.json --run begun"
    assert "unfinished, 0 of 6 steps" in found.text and found.text.count(goes_on) >= 4
    assert "metaray train tiny.json --run begun-profiled --profile" in found.text


def test_a_run_of_another_version(trained: Any, tmp_path: Path) -> None:
    """Its experiment cannot be read here, and it kept less; its result is told all the same."""
    shutil.copytree(trained.storage / "first", tmp_path / "runs" / "old")
    storage = Storage(str(tmp_path / "runs")).child("old")
    record = Run("old", storage).record.model_dump(mode="json")
    record["experiment"] |= {"field_of_another_version": 1}
    write_record(storage, RECORD_FILE, {key: record[key] for key in ("experiment",)})
    (tmp_path / "runs" / "old" / "judged.json").unlink()
    found = page_of("old", tmp_path / "runs", tmp_path)
    mean = Result.from_json(storage.read("result.json")).meta_test.mean
    assert f"{mean:.4f}" in found.text and "field_of_another_version" in found.text
    assert "Judging the learner again is refused" in found.text and "was not kept when the run was made" in found.text
    assert "The command that made it was not recorded" in found.text


def test_a_search(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    space = {"algorithm.inner_lr": "loguniform(1e-3, 1)", "optimizer.outer_lr": "loguniform(1e-3, 1)"}
    place = Storage(str(tmp_path / "runs")).child("mine")
    ledger = open_ledger(place, make_search(make_experiment(), space), {"command": "metaray tune x --run mine"})
    for number, rate in enumerate((0.1, 0.02, 0.3, 0.4)):
        entry = ledger.propose(number, {"algorithm.inner_lr": rate, "optimizer.outer_lr": 0.01 * (number + 1)})
        Run(f"trial-{number}", ledger.run_of(number)).begin(entry.experiment, tags={}, tracking_run="t")
    pretend(ledger, Work(0))
    pretend(ledger, Work(1))
    ledger.end(2, "failed", "it fell <over>")
    found = page_of("mine", tmp_path / "runs", tmp_path)
    for told in (
        "loguniform(0.001, 1.0)",
        "trial-0000 \u2605 finished 0.1",
        "failed, it fell <over>",
        "1 failed, 1 waiting",
    ):
        assert told in found.text or told.replace(", ", ", 2 finished, ") in found.text, told
    assert "metaray tune x --run mine" in found.text and found.tags.count("svg") == 4
    assert f"metaray report mine/trial-0000 --storage {tmp_path / 'runs'}" in found.text
    (trial := page_of("mine/trial-0001", tmp_path / "runs", tmp_path)).text.index("mine/trial-0001")
    assert "maml (inner_lr 0.02" in trial.text or "inner_lr 0.02" in trial.text


def test_names_that_are_not_there(trained: Any, tmp_path: Path) -> None:
    where: dict[str, Any] = {"storage": str(trained.storage), "out": tmp_path / "x.html", "progress": False}
    with pytest.raises(
        InputError, match=r"unknown run in .*: 'frist'\. Did you mean 'first'\? Known: first\. A learner is "
    ):
        report("frist", **where)
    with pytest.raises(InputError, match="unknown trial of first: 'trial-0000'"):
        report("first/trial-0000", **where)
    with pytest.raises(InputError, match="neither the name of a run or a search, nor a learner"):
        report("/nowhere", **where)
    with pytest.raises(InputError, match="at least 2, or 0"):
        report("first", episodes=1, **where)
    with pytest.raises(InputError, match="there is no folder"):
        report("first", **where | {"out": tmp_path / "no" / "x.html"})
    assert not list(tmp_path.iterdir())


def test_a_report_that_mlflow_does_not_take_is_written(trained: Any, tmp_path: Path) -> None:
    where: dict[str, Any] = {"storage": str(trained.storage), "episodes": 0, "progress": False}
    with pytest.raises(NotLogged, match=r"is written to .*x\.html.* there is no database at .*--no-log") as raised:
        report("first", out=tmp_path / "x.html", tracking_uri=f"sqlite:///{tmp_path}/none.db", **where)
    assert raised.value.report.path.is_file() and [path.name for path in tmp_path.iterdir()] == ["x.html"]


def test_the_command(
    trained: Any, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--storage", trained.storage, "--episodes", 0, "--no-log")
    ended = command("report", "first", *where)
    assert ended.code == 0 and ended.out.startswith("report: report-first.html ("), ended.err
    told = json.loads(command("report", "first", *where, "--json").out)
    assert told == {
        "report": "report-first.html",
        "kind": "run",
        "name": "first",
        "tracking_run": None,
        "tracking_uri": None,
    }
    assert command("report", "second", *where).code == 2
    found = seen((tmp_path / "report-first.html").read_text())
    again = f"metaray report first --storage {trained.storage}"
    assert f"without judging the learner again. {again}" in found.text


def test_two_learners_beside_one_another(trained: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    folder = trained.storage / "first" / "learner"
    arguments = ("compare", folder, folder, "--episodes", 4, "--out", tmp_path / "c.html")
    ended = command(*arguments)
    found = seen((tmp_path / "c.html").read_text())
    assert ended.code == 0 and "both are equal 4" in found.text and "+0.0000" in found.text
    assert "Both come from the same experiment" in found.text and f"--out {tmp_path / 'c.html'}" in found.text
    refused = command(*arguments[:-1], tmp_path / "no" / "c.html")
    assert refused.code == 2 and "there is no folder" in refused.err


def test_a_learner_whose_answers_are_no_numbers(trained: Any) -> None:
    """It is reported, not refused: its owner wants to know."""
    run = Run("first", Storage(str(trained.storage)).child("first"))
    learner: Learner = load_learner(trained.storage / "first" / "learner")
    for tensor in learner.meta.values():
        tensor.fill_(np.nan)
    found = measure(learner, run.experiment(), "meta-test", 3, device=CPU, show=lambda what, done, of: None)
    assert found.classes is not None and found.classes.calibration.bins[0].predictions == 18
