"""Ten minutes of random faults against one run, which must end in the parameters of a run that was left alone.

`make chaos`; METARAY_CHAOS_S and METARAY_CHAOS_SEED change how long and which faults.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.benchmarks.exactness import experiment_of
from jobs.benchmarks.faults import kill
from metaray.config import replace
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER, checkpoint_name, saved_steps
from metaray.records.storage import Storage

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.ray]

SECONDS = float(os.environ.get("METARAY_CHAOS_S", "600"))
SEED = int(os.environ.get("METARAY_CHAOS_SEED", "0"))
BETWEEN_S = (5.0, 30.0)
# Faults take up more than the rest of the time: the run is as long as this share of it would be, undisturbed.
SHARE_OF_WORK = 0.6


class Run:
    """One run by name, started again and again."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        (folder / "experiment.json").write_text(experiment.to_json())
        self._folder = folder
        self._log = folder / "log"
        self.storage = Storage(str(folder / "runs" / "chaos"))

    def start(self, workers: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "metaray", "train", "experiment.json", "--run", "chaos", "--no-register"]
        command += ["--workers", workers, "--cpus-per-worker", "0.5", "--hang-timeout", "15", "--device", "cpu"]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def damage_newest(self, chance: random.Random) -> bool:
        """Flip a bit of the newest checkpoint, or cut it off."""
        steps = saved_steps(self.storage)
        if len(steps) < 2:
            return False
        path = Path(self.storage.root) / CHECKPOINTS_FOLDER / checkpoint_name(steps[-1]) / "state.safetensors"
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data if chance.random() < 0.5 else data[: len(data) // 2])
        return True


def done_by(act: Callable[[], None]) -> bool:
    act()
    return True


def sha256(text: str) -> str:
    found: list[str] = re.findall(r"parameters sha256: ([0-9a-f]{64})", text)
    return found[-1]


def steps_per_s(folder: Path) -> float:
    """Of an undisturbed run in process."""
    folder.mkdir()
    experiment = replace(experiment_of("maml", 0), num_steps=200)
    assert Run(experiment, folder).start("0").wait() == 0
    result = json.loads((folder / "runs" / "chaos" / "result.json").read_text())
    return float(result["episodes_per_s"]) / experiment.meta_batch_size


def test_ten_minutes_of_faults_leave_no_trace(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    num_steps = int(steps_per_s(tmp_path / "speed") * SECONDS * SHARE_OF_WORK)
    evaluation = Evaluation(every=num_steps // 10, val_episodes=10, test_episodes=10)
    experiment = replace(
        experiment_of("maml", 0), num_steps=num_steps, checkpoint=Checkpoint(every=20), evaluation=evaluation
    )
    (tmp_path / "disturbed").mkdir()
    run, done = Run(experiment, tmp_path / "disturbed"), Counter[str]()
    ends = time.monotonic() + SECONDS
    driver = run.start("1:3")
    faults: dict[str, Callable[[], bool]] = {
        "sampler killed": lambda: kill("sampler", driver.pid, which=chance.randrange(8)),
        "worker killed": lambda: kill("worker", driver.pid, which=chance.randrange(8)),
        "worker frozen": lambda: kill("worker", driver.pid, which=chance.randrange(8), number=signal.SIGSTOP),
        "driver killed": lambda: done_by(driver.kill),
        "driver asked to stop": lambda: done_by(driver.terminate),
        "driver killed, newest checkpoint damaged": lambda: done_by(driver.kill) and run.damage_newest(chance),
    }
    while True:
        try:
            driver.wait(chance.uniform(*BETWEEN_S) if time.monotonic() < ends else None)
        except subprocess.TimeoutExpired:
            fault = chance.choice(list(faults))
            done[fault] += faults[fault]()
            continue
        assert driver.returncode in (0, 75, -signal.SIGKILL, -signal.SIGTERM), run.log[-3000:]
        if driver.returncode == 0:
            break
        driver = run.start("1:3")
    disturbed_s = SECONDS - (ends - time.monotonic())
    (tmp_path / "alone").mkdir()
    alone = Run(experiment, tmp_path / "alone")
    assert alone.start("0").wait() == 0, alone.log[-3000:]
    print(f"seed {SEED}, {num_steps} steps, {disturbed_s:.0f} s, {dict(done)}: {sha256(run.log)}")
    assert time.monotonic() > ends, "the run ended before its time was over"
    assert sha256(run.log) == sha256(alone.log)
    assert sum(done.values()) >= SECONDS / 60
