import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.events import Fanout
from metaray.records.storage import Storage
from tests.patience import PATIENT_S
from tests.training.whole_runs import train_in_process

Command = Callable[..., Any]
ESTIMATE = r"[01]\.\d{4} \+- \d\.\d{4} \(8 episodes\)"
HEAVY = {"torch", "mlflow", "ray", "numpy", "pyarrow", "pandas", "matplotlib", "PIL", "rich", "pydantic"}


def python(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENT_S,
        **options,
    )


def test_train_ends_with_lines_that_a_script_can_read(trained: Any) -> None:
    code, out, err = trained.ended
    assert code == 0, err
    lines = out.splitlines()
    for pattern in (
        r"protocol: 3-way 1-shot, 2 queries a class, transductive batch norm",
        r"meta-val accuracy: [01]\.\d{4} \+- \d\.\d{4} \(6 episodes\), best of the run, after step [246]",
        rf"nearest neighbour on pixels: {ESTIMATE}; the learner is (better|worse) by .*, episode by episode",
        rf"meta-test accuracy before training: {ESTIMATE}",
        rf"meta-test accuracy before adaptation: {ESTIMATE}",
        rf"meta-test accuracy: {ESTIMATE}",
        r"speed: [\d.]+ episodes/s, [\d.]+% of step time waiting for episodes, \d+ s in all",
        r"registered: models:/tiny/1 \(@champion\)",
        r"one query at a time: refused; meta-val accuracy [01]\.\d{4} together",
        r"champion: yes, --promote said so, although a first champion must surpass the nearest neighbour: .*zero",
        r"run: first \(MLflow [0-9a-f]{32} at sqlite:///.*mlflow\.db\)",
        r"parameters sha256: [0-9a-f]{64}",
    ):
        assert [line for line in lines if re.fullmatch(pattern, line)], f"{pattern} not in\n{out}"
    assert "first step after" in err
    assert re.search(r"step 6/6  loss [\d.]+  accuracy [\d.]+  \d+ episodes/s  waiting [\d.]+%  0:00 left", err)
    assert re.search(r"step 2: meta-val loss [\d.]+  accuracy [\d.]+", err)


def test_the_same_run_again_shows_its_result_and_does_nothing(trained: Any, command: Command) -> None:
    from metaray.tracking.client import open_client
    from metaray.tracking.registry import show
    from metaray.tracking.server import MlflowServer

    code, out, err = command(*trained.arguments, "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["run"] == "first"
    assert f"parameters sha256: {shown['parameters_sha256']}" in trained.ended.out
    assert shown["registered"].startswith("models:/tiny/1")
    assert shown["decision"].startswith("--promote said so, although a first champion must surpass the nearest")
    assert shown["single_queries"].startswith("refused; ")
    assert shown["meta_test"]["episodes"] == 8
    assert "first step" not in err
    assert [version.version for version in show(MlflowServer(trained.uri), "tiny").versions if version.run_id] == [1]
    client = open_client(trained.uri)
    steps = [metric.step for metric in client.get_metric_history(shown["tracking_run"], "val/accuracy")]
    assert steps == [2, 4, 6]
    assert client.get_run(shown["tracking_run"]).info.status == "FINISHED"


def test_a_changed_experiment_under_the_same_name(trained: Any, command: Command) -> None:
    code, out, err = command(*trained.arguments, "--set", "algorithm.inner_lr=0.2", "--set", "num_steps=7")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: run 'first' exists with another experiment; use another --run name:",
        "  algorithm.inner_lr: 0.1 -> 0.2",
        "  num_steps: 6 -> 7",
    ]


def test_a_loss_that_is_not_finite(trained: Any, command: Command) -> None:
    from metaray.tracking.client import open_client

    arguments = [*trained.arguments, "--run", "nan", "--set", "algorithm.inner_lr=1e30"]
    code, out, err = command(*arguments, "--set", "algorithm.inner_steps=2")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert re.match(r"failed: stopped at step \d+: the .* not finite .*episode.* \d+ .*nan", last), last
    assert "Traceback" not in err
    client = open_client(trained.uri)
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'nan'")
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("workers", "num_steps"), [(0, 150), pytest.param(1, 3000, marks=[pytest.mark.slow, pytest.mark.ray])]
)
def test_a_signal_stops_with_a_checkpoint_and_the_same_command_goes_on(
    workers: int,
    num_steps: int,
    make_experiment: Callable[..., Experiment],
    database: str,
    command: Command,
    tmp_path: Path,
) -> None:
    experiment = make_experiment(
        name="stopped", num_steps=num_steps, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2)
    )
    (tmp_path / "x.json").write_text(experiment.to_json())
    arguments = ["train", str(tmp_path / "x.json"), "--storage", str(tmp_path / "runs"), "--tracking-uri", database]
    arguments += ["--run", "s", "--no-register"]
    process = subprocess.Popen(
        [sys.executable, "-m", "metaray", *arguments, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "first step after" not in (line := process.stderr.readline()):
        assert line, "the run ended before its first step"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENT_S)
    assert (process.returncode, out) == (75, ""), err
    assert re.search(r"^stopped: .*after step (\d+); a checkpoint holds it; --run s goes on from there$", err, re.M)
    (saved,) = (tmp_path / "runs/s/checkpoints").iterdir()
    assert 0 < int(saved.name.rpartition("-")[2]) < num_steps

    code, out, err = command(*arguments)
    assert code == 0, err
    undisturbed = train_in_process(experiment, Storage(str(tmp_path / "other")), Fanout([]))
    assert f"parameters sha256: {undisturbed.parameters_sha256}" in out.splitlines()
    assert "registered" not in out


def test_help_starts_light() -> None:
    script = (
        "import sys; from metaray.cli import main; from metaray.cli.examples import EXAMPLES\n"
        "for path in EXAMPLES:\n"
        "    try: main([*path.split()[1:], '--help'])\n"
        "    except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_python_m_metaray() -> None:
    done = python("-m", "metaray", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"metaray \d+\.\d+\.\d+", done.stdout.strip())
    done = python("-m", "metaray", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: No such command 'trian'. Did you mean 'train'?")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("train",),
        ("train", "a.py:b", "--samplers", "0"),
        ("upload",),
        ("train", "a.py:b", "--wrokers", "1"),
        ("train", "a.py:b", "c.py:d"),
        ("data",),
        ("data", "import", "omniglot"),
        ("registry", "promote", "x", "first"),
        ("evaluate", "models:/x@y", "--episodes", "1"),
        ("adapt", "models:/x@y"),
    ],
)
def test_usage_errors(command: Command, arguments: tuple[str, ...]) -> None:
    code, out, err = command(*arguments)
    assert code == 2
    if arguments:
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        assert f"In `metaray {' '.join(arguments)}`; see `metaray" in line


def test_passwords_are_not_repeated(command: Command) -> None:
    _, _, err = command("train", "--tracking-uri", "http://me:secret@host")
    assert "secret" not in err
    assert "http://me:***@host" in err


def test_what_a_recipe_raises_is_told_with_its_own_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("def broken():\n    return 1 // 0\n")
    ended = command("train", tmp_path / "r.py:broken")
    assert (ended.code, ended.out) == (2, "") and "ZeroDivisionError" in ended.err
    assert "r.py:2" in ended.err and "return 1 // 0" in ended.err


def test_the_keys_that_set_takes_are_listed(make_experiment: Any, command: Any, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(make_experiment().to_json())
    code, out, err = command("train", tmp_path / "tiny.json", "--set", "algorithm.inner_lr=0.25", "--keys")
    assert (code, err) == (0, "")
    assert {"algorithm.inner_lr=0.25", "optimizer.kind=adam", "evaluation.every=2", "seed=0"} <= set(out.splitlines())
    assert "# inner_steps: Number of gradient steps on the support set." in out.splitlines()
    assert {"optimizer.groups={}", "optimizer.nesterov=false", "optimizer.schedule=constant"} <= set(out.splitlines())
    again = [part for line in out.splitlines() if not line.startswith("# ") for part in ("--set", line)]
    assert command("train", tmp_path / "tiny.json", *again, "--keys").out == out
    group = ["--set", "optimizer.groups.head.*.outer_lr=0.5", "--keys"]
    assert "optimizer.groups.head.*.outer_lr=0.5" in command("train", tmp_path / "tiny.json", *group).out.splitlines()
