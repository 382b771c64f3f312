"""The benchmark of start-up: what it counts, and how it takes turns."""

import subprocess
from pathlib import Path

import pytest

from jobs.benchmarks import start_up
from jobs.benchmarks.start_up import HERE, in_turns, ran, spread

# A process below the command works, too; the command itself does little after its first step.
BUSY = """
import subprocess, sys, time
work = "import time; end = time.process_time() + 0.5\\nwhile time.process_time() < end: pass\\ntime.sleep(0.5)"
subprocess.run([sys.executable, "-c", work], check=True)
print("first step after 1.0 s: imports 1.0", file=sys.stderr, flush=True)
time.sleep(0.5)
subprocess.run([sys.executable, "-c", work], check=True)
"""


def test_seconds_of_cpu_are_those_of_all_processes(tmp_path: Path) -> None:
    done = ran(["-c", BUSY], str(tmp_path), HERE)
    assert "first step after 1.0 s" in done.said
    assert 0.4 < done.first_cpu_s < done.cpu_s - 0.4 and done.cpu_s < done.seconds


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        ran(["-c", "raise SystemExit(3)"], str(tmp_path), HERE)


def test_checkouts_take_turns() -> None:
    asked: list[str] = []

    def once(checkout: Path) -> dict[str, float]:
        asked.append(checkout.name)
        return {"seconds": float(len(asked))}

    found = in_turns([Path("a"), Path("b")], 3, once)
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert found["a"]["seconds"] == spread([1.0, 4.0, 5.0]) == {"median": 4.0, "lower": 2.5, "upper": 4.5}
    assert spread([2.0]) == {"median": 2.0, "lower": 2.0, "upper": 2.0}


def test_a_start_up_is_told_by_phases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = "first step after 3.0 s: imports 1.5, checks 1.0, training 0.5\n"
    monkeypatch.setattr(start_up, "ran", lambda *_: start_up.Ran(said, 9.0, 5.0, 2.0))
    found = start_up.start_up(0, str(tmp_path), HERE)
    assert found == {
        "first_step_s": 3.0,
        "first_step_cpu_s": 2.0,
        "whole_run_cpu_s": 5.0,
        "imports_s": 1.5,
        "checks_s": 1.0,
        "training_s": 0.5,
    }
