"""`metaray submit` against a Ray cluster with token authentication, stopped half-way and submitted again."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.events import Fanout
from metaray.records.storage import Storage
from metaray.submission.client import connect
from tests.patience import PATIENT_S
from tests.training.whole_runs import train_in_process

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NUM_STEPS = 2000


@dataclass(frozen=True)
class Head:
    """A head node; its user's home is a folder of its own."""

    address: str
    home: Path
    token: Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    token = home / "token"
    token.touch(0o600)
    token.write_text("c0ffee" * 10)
    port = free_port()
    bin_folder = str(Path(sys.executable).parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    # The last leaves 127.0.0.1 as it is, where Ray would take an address that others reach.
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        options = [f"--port={free_port()}", f"--dashboard-port={port}", f"--temp-dir={scratch}", "--num-cpus=2"]
        options += ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
        # `ray stop` would end every cluster of this machine: with --block this one ends with its own process.
        process = subprocess.Popen(
            [f"{bin_folder}/ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            found = Head(f"http://127.0.0.1:{port}", home, token)
            wait_for(found)
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENT_S)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def wait_for(head: Head) -> None:
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(head.token)
    try:
        for _ in range(int(PATIENT_S)):
            try:
                connect(head.address, insecure=False, runs_code=True).jobs()
                return
            except (InputError, RuntimeError):
                time.sleep(1)
    finally:
        del os.environ["RAY_AUTH_TOKEN_PATH"]
    pytest.fail("the cluster did not start")


def test_a_job_is_stopped_and_goes_on(
    head: Head,
    make_experiment: Callable[..., Experiment],
    command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = make_experiment(
        name="far", num_steps=NUM_STEPS, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2)
    )
    (tmp_path / "far.json").write_text(experiment.to_json())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    arguments = ["submit", "train", "far.json", "--workers", "1", "--run", "r", "--no-register", "--local-to-head"]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    refused = command(*arguments)
    assert refused.code == 2 and "HTTP 403" in refused.err
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.token))

    following = subprocess.Popen(
        [sys.executable, "-m", "metaray", *arguments, "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    while "first step after" not in (line := following.stdout.readline()):
        assert line, f"the job ended before its first step: {following.communicate()}"
    again = command(*arguments)
    assert again.code == 2 and "run 'r' is job metaray-r and has not ended" in again.err
    stopped = command("jobs", "stop", "r")
    assert stopped.code == 0, stopped.err
    assert "metaray-r: STOPPED, " in stopped.out and "a checkpoint holds it; --run r goes on from there" in stopped.out
    out, err = following.communicate(timeout=PATIENT_S)
    assert following.returncode == 75, out + err
    (saved,) = (head.home / "metaray/runs/r/checkpoints").iterdir()
    assert 0 < int(saved.name.rpartition("-")[2]) < NUM_STEPS

    ended = command(*arguments, "--follow")
    assert ended.code == 0, ended.out + ended.err
    undisturbed = train_in_process(experiment, Storage(str(tmp_path / "other")), Fanout([]))
    assert f"parameters sha256: {undisturbed.parameters_sha256}" in ended.out.splitlines()
    assert [line.split()[:3] for line in command("jobs", "list").out.splitlines()[1:]] == [
        ["metaray-r-2", "r", "SUCCEEDED"],
        ["metaray-r", "r", "STOPPED"],
    ]

    failed = command("submit", "train", "far.json", "--run", "r", "--local-to-head", "--set", "num_steps=7", "--follow")
    assert failed.code == 2 and f"num_steps: {NUM_STEPS} -> 7" in failed.out
