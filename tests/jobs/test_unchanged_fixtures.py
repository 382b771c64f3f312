"""Fixtures of an old version: how what becomes of them is judged; and, slowly, those of HEAD."""

import json
from pathlib import Path

import pytest

from jobs.benchmarks.unchanged.__main__ import main
from jobs.benchmarks.unchanged.fixtures import (
    Found,
    answer,
    check,
    gone_on,
    learners,
    passed,
    predicted,
    refused,
    table,
)
from jobs.benchmarks.unchanged.fixtures import main as fixtures_main
from jobs.benchmarks.unchanged.supply import EXPERIMENTS, NUM_CLASSES, PER_CLASS, lay_out
from jobs.benchmarks.unchanged.trees import ROOT
from tests.jobs.test_unchanged import no_commit


def logged(folder: Path, name: str, *, code: int = 0, out: object = None, err: str = "") -> None:
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / f"{name}.code").write_text(str(code))
    (logs / f"{name}.out").write_text(json.dumps(out))
    (logs / f"{name}.err").write_text(err)


def test_an_answer_is_compared_without_its_place(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    logged(old, "evaluate", out={"accuracy": 0.5, "seconds": 1.0, "tracking_uri": "sqlite:////old"})
    logged(new, "evaluate", out={"accuracy": 0.5, "seconds": 2.0, "tracking_uri": "sqlite:////new"})
    assert answer(old, new, "evaluate") == "same"
    logged(new, "evaluate", out={"accuracy": 0.25, "seconds": 1.0})
    assert answer(old, new, "evaluate") == "accuracy: 0.5 became 0.25"


def test_a_finished_run_says_again_what_it_measured(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    logged(old, "finished", out={"seconds": 1.0})
    logged(new, "finished", out={"seconds": 2.0})
    assert answer(old, new, "finished") == "seconds: 1.0 became 2.0"


@pytest.mark.parametrize(
    ("code", "err", "is_refusal"),
    [
        (2, "checking\nerror: the run's format is 2, this version takes 3\n", True),
        (2, "error: the run has no such field\n", False),
        (2, "error: format 2\nerror: format 3\n", False),
        (2, "error: format 2\nTraceback\n", False),
        (1, "error: format 2\n", False),
    ],
)
def test_refusals_are_one_message_about_the_format(tmp_path: Path, code: int, err: str, is_refusal: bool) -> None:
    logged(tmp_path, "stopped", code=code, err=err)
    found = Found("stopped", refused(tmp_path, "stopped"))
    assert found.refused == is_refusal and passed([found]) == is_refusal
    assert found.found != "" and ("1 refused for their format" in table([found])) == is_refusal


def test_what_begins_again_has_not_gone_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    logged(new, "stopped", err="step 1\n")
    assert gone_on(old, new, "stopped") == "it began again"
    logged(new, "search", out={"trials": [{"tracking_run": "b"}]})
    trial = old / "runs" / "search" / "trial-0000"
    trial.mkdir(parents=True)
    (trial / "run.json").write_text(json.dumps({"tracking_run": "a"}))
    assert gone_on(old, new, "search") == "a trial that was done was trained again"
    (trial / "run.json").write_text(json.dumps({"tracking_run": "b"}))
    logged(old, "search-reference", out={"trials": [{"tracking_run": "c"}], "value": 1})
    assert gone_on(old, new, "search") == "value: gone, it was 1"


def test_other_predictions_are_found(tmp_path: Path) -> None:
    for side, value in (("old", 0.25), ("new", 0.25000000000000006)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "predictions.json").write_text(json.dumps({"a": [1.0], "b": [[0.5, value]]}))
    rows = learners(tmp_path / "old", tmp_path / "new")
    assert rows == [Found("learner a", "same"), Found("learner b", "0.1: 0.25 became 0.25000000000000006")]
    assert not passed(rows) and table(rows).endswith("1 of 2 equal")


def test_what_is_new_beside_old_columns_and_other_words_for_a_refusal_are_no_difference() -> None:
    assert predicted([{"label": "a"}], [{"label": "a", "distribution": {"a": 1.0}}]) == "same"
    assert predicted([{"label": "a"}], [{"label": "a"}, {"label": "b"}]) == '1.label: new, "b"'
    assert predicted([{"label": "a"}], [{"labels": "a"}]) == '0.label: gone, it was "a"'
    first, other = "E: refusing to import 'own:Net': say trust", "E: refusing to import 'own:Other'"
    assert predicted([first], ["F: refusing to import 'own:Net': set METARAY_TRUST"]) == "same"
    assert "became" in predicted([first], [other]) and "became" in predicted([first], ["E: no such file"])


def test_the_supply_is_a_function_of_nothing(tmp_path: Path) -> None:
    for side in ("one", "two"):
        (tmp_path / side).mkdir()
        lay_out(tmp_path / side)
    one, two = ([path for path in sorted((tmp_path / side).rglob("*")) if path.is_file()] for side in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert len(list((tmp_path / "one").glob("images/*/*.png"))) == NUM_CLASSES * PER_CLASS
    assert {path.stem for path in (tmp_path / "one").glob("*.json")} == set(EXPERIMENTS)


def test_a_folder_without_fixtures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="holds no fixtures"):
        check(ROOT, tmp_path)
    assert fixtures_main(["check", str(tmp_path)]) == 2 and "holds no fixtures" in capsys.readouterr().err
    assert fixtures_main(["make", str(tmp_path)]) == 2, "what is there is not written over"


@pytest.mark.slow
@pytest.mark.ray
def test_the_working_tree_takes_up_what_its_commit_made(tmp_path: Path) -> None:
    if reason := no_commit():
        pytest.skip(reason)
    page = tmp_path / "page.md"
    assert main(["HEAD", "--fixtures", "--keep", str(tmp_path / "kept"), "--out", str(page)]) == 0
    text = page.read_text()
    assert text.rstrip().endswith("19 of 19 equal") and "refused" not in text
