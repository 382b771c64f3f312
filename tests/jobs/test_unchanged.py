"""The comparison of an old commit with the working tree: what it runs, what it sees, and what it says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.benchmarks.unchanged import own_code
from jobs.benchmarks.unchanged.__main__ import main
from jobs.benchmarks.unchanged.experiments import LEARNS_VALUES, NOT_TRAINED, ONLY_CLASSES, OWN, Compared, every
from jobs.benchmarks.unchanged.outcome import (
    SAME,
    TIMED,
    compared,
    difference,
    outcome_of,
    table,
    without_additions,
)
from jobs.benchmarks.unchanged.running import Share, write_own_code
from jobs.benchmarks.unchanged.side import starts_ray
from jobs.benchmarks.unchanged.trees import ROOT
from metaray.algorithms import ALGORITHMS
from metaray.experiment.experiment import Experiment
from metaray.training.checks.preflight import preflight

QUICK = "values-maml"


def no_commit() -> str:
    """Why there is no old commit to compare with; empty if there is one."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--verify", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return "no git: it is not installed"
    return f"no git: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture(scope="module", autouse=True)
def own_code_at_hand(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in the folder of a side."""
    folder = tmp_path_factory.mktemp("own")
    write_own_code(folder)
    sys.path.append(str(folder))


def test_every_algorithm_is_compared() -> None:
    assert {*LEARNS_VALUES, *ONLY_CLASSES, *NOT_TRAINED} == set(ALGORITHMS)
    assert {kind for kind, cls in ALGORITHMS.items() if not cls.needs_classes} == {*LEARNS_VALUES, *NOT_TRAINED}
    names = [one.name for one in every()]
    assert len(set(names)) == len(names) == 46 and len(every("omniglot.arrow")) == 48
    assert {f"classes-{kind.replace('_', '-')}" for kind in {*LEARNS_VALUES, *ONLY_CLASSES}} <= set(names)
    assert {f"values-{kind.replace('_', '-')}" for kind in LEARNS_VALUES} <= set(names)


def test_between_them_they_have_what_may_change_bits() -> None:
    trees = [one.tree for one in every()]
    assert {tree["chunk_size"] for tree in trees} == {1, 3}
    assert {tree["algorithm"].get("batch_norm", "inductive") for tree in trees} == {"inductive", "transductive"}
    assert {tree["source"]["kind"] for tree in trees} == {"glyphs", "function_family", "umtra"}
    assert {one.ranks for one in every()} == {0, 3}
    assert any(tree.get("precision", {}).get("dtype") == "bfloat16" for tree in trees)


@pytest.mark.parametrize("one", every(), ids=lambda one: one.name)
def test_each_is_an_experiment_that_can_start(one: Compared) -> None:
    experiment = Experiment.from_json(json.dumps(one.tree))
    assert experiment.name == one.name and experiment.num_steps <= 4 and experiment.meta_batch_size >= one.ranks
    preflight(experiment)


@pytest.mark.parametrize(
    "key", ["train/wait_share", "seconds", "episodes_per_s", "trials.0.seconds", "time_ms", "wait_s"]
)
def test_what_was_timed_is_left_out(key: str) -> None:
    assert TIMED.search(key)


@pytest.mark.parametrize("key", ["train/loss", "val/accuracy_half_width", "train/outer_lr", "best_step", "num_steps"])
def test_what_was_computed_is_not(key: str) -> None:
    assert not TIMED.search(key)


def test_differences_in_words() -> None:
    assert difference({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == SAME
    assert difference({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == "b: 2 became 3"
    assert difference({"a": "1", "b": "2"}, {"a": "1"}) == "b: gone, it was 2"
    assert difference({"a": "1"}, {"a": "1", "b": "2"}) == "b: new, 2"
    assert difference({}, {}) != SAME, "two runs that left nothing prove nothing"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HEAD and the working tree, compared by the command; all that they left, and the table."""
    if reason := no_commit():
        pytest.skip(reason)
    kept = tmp_path_factory.mktemp("unchanged") / "kept"
    assert main(["HEAD", "--only", QUICK, "--keep", str(kept), "--out", str(kept.with_suffix(".md"))]) == 0
    return kept


@pytest.mark.slow
def test_the_working_tree_trains_as_its_commit(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = runs.with_suffix(".md").read_text()
    assert page.splitlines()[2:] == [f"| {QUICK} | same | same | same |", "", "1 of 1 equal"]
    # Each side by its own code: neither would notice a change otherwise.
    assert (runs / "tree" / "platform" / "metaray").is_dir()
    old, new = (outcome_of(runs / side / "runs" / QUICK) for side in ("old-0", "new-0"))
    assert old.parameters == new.parameters and old.journal == new.journal
    assert any("loss at step 3" in key for key in old.journal) and not any("wait" in key for key in old.journal)
    assert any(key.startswith("meta/") for key in old.parameters) and "meta_test.mean" in old.results


@pytest.mark.slow
def test_another_inner_lr_is_found(runs: Path) -> None:
    (one,) = [one for one in every() if one.name == QUICK]
    other = one._replace(tree={**one.tree, "algorithm": {**one.tree["algorithm"], "inner_lr": 0.0501}})
    share = Share(ROOT, runs / "other-0", [other])
    share.run()
    row = compared(QUICK, outcome_of(runs / "old-0" / "runs" / QUICK), share.outcome(QUICK))
    assert not row.equal and " became " in row.parameters and " became " in row.results and " became " in row.journal
    assert row.parameters.startswith("parameters_sha256: ") and table([row]).endswith("0 of 1 equal")


@pytest.mark.slow
def test_an_altered_journal_is_found(runs: Path, tmp_path: Path) -> None:
    old = runs / "old-0" / "runs" / QUICK
    new = shutil.copytree(runs / "new-0" / "runs" / QUICK, tmp_path / "run")
    path = sorted(new.glob("metrics/*.jsonl"))[0]
    lines = path.read_text().splitlines()
    entry = json.loads(lines[0])
    path.write_text("\n".join([json.dumps({**entry, "value": entry["value"] * (1 + 1e-15)}), *lines[1:]]))
    row = compared(QUICK, outcome_of(old), outcome_of(new))
    assert (row.parameters, row.results) == (SAME, SAME) and row.journal.startswith(f"{entry['key']} at step 1: ")
    path.write_text("\n".join([json.dumps({**entry, "step": 7}), *lines[1:]]))
    assert "gone" in compared(QUICK, outcome_of(old), outcome_of(new)).journal
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{path.name}, line 1: not JSON"):
        outcome_of(new)


@pytest.mark.slow
def test_an_altered_tensor_is_found(runs: Path, tmp_path: Path) -> None:
    old = runs / "old-0" / "runs" / QUICK
    new = shutil.copytree(runs / "new-0" / "runs" / QUICK, tmp_path / "run")
    path = sorted(new.glob("checkpoints/*/*.safetensors"))[-1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    row = compared(QUICK, outcome_of(old), outcome_of(new))
    assert path.parent.name in row.parameters and (row.results, row.journal) == (SAME, SAME)


def test_a_run_that_failed_is_not_equal(tmp_path: Path) -> None:
    share = Share(ROOT, tmp_path / "new-0", [])
    (share.folder / "logs").mkdir(parents=True)
    (share.folder / "logs" / "it.code").write_text("2")
    (share.folder / "logs" / "it.err").write_text("checking\nerror: no such thing\n")
    outcome = share.outcome("it")
    row = compared("it", outcome, outcome)
    assert not row.equal and row.parameters.count("exit code 2: error: no such thing") == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such-commit"], "no tree of 'no-such-commit'"),
        ([str(Path(__file__).parent)], "has no platform/metaray"),
        (["HEAD", "--only", "nothing"], "--only 'nothing' fits none of classes-maml, "),
        (["HEAD", "--omniglot", "no-such.arrow"], "no-such.arrow: no such file"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_without_git_a_folder_will_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["HEAD"]) == 2
    assert "there is no git" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["train", "a.json", "--workers", "3"], True),
        (["train", "a.json", "--workers", "0"], False),
        (["train", "a.json"], False),
        (["tune", "a.json"], True),
        (["registry", "list"], False),
    ],
)
def test_which_commands_start_a_ray(arguments: list[str], starts: bool) -> None:
    assert starts_ray(arguments) == starts


def test_own_code_sees_where_metaray_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, OWN, raising=False)
    monkeypatch.setenv(own_code.TREE, str(tmp_path))
    with pytest.raises(ImportError, match="metaray comes from"):
        __import__(OWN)


def test_what_is_told_in_addition_is_no_difference() -> None:
    old = {"train/loss at step 1": "0.5", "trials.0.value": "1", "parameters_sha256": "a"}
    new = old | {"test/accuracy at step 6": "0.9", "device": '"cpu"', "trials.0.seconds_": "2"}
    assert without_additions(old, new) == old
    assert "trials.1.value" in without_additions(old, new | {"trials.1.value": "3"}), "another trial is one"
    assert "train/loss at step 2" in without_additions(old, new | {"train/loss at step 2": "0.4"})
    assert without_additions({}, new) == new, "two sides of which one left nothing prove nothing"
