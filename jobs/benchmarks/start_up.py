"""Seconds from command to first training step, and what takes them; and of commands that only look.

    python jobs/benchmarks/start_up.py [--repeats 5] [--workers 0 2]

Starts `metaray train` in a fresh process and a fresh folder each time, so that each run also creates its MLflow
database. The bound in the same run is an interpreter that imports torch and nothing else. Beside the seconds on the
clock stand those of CPU (user and system, of the command and of what it waits for; Ray's own processes are not among
them): they say the same on a machine that does other work meanwhile.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "glyphs.py"
TINY = ["num_steps=2", "evaluation.val_episodes=2", "evaluation.test_episodes=2"]
LOOKS = ("--version", "recipes", "runs list", "registry list")
FIRST_STEP = re.compile(r"first step after ([0-9.]+) s: (.*)")


def ran(command: Sequence[str], folder: str) -> tuple[str, float, float]:
    """What it says on stderr, its seconds, and its seconds of CPU."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stderr, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_up(workers: int, folder: str) -> tuple[float, dict[str, float], float]:
    """One run of two steps: seconds to the first, by phase too, and seconds of CPU of all of it."""
    command = ["-m", "metaray", "train", f"{RECIPE}:demo", "--workers", str(workers), "--no-register"]
    for setting in TINY:
        command += ["--set", setting]
    said, _, cpu = ran(command, folder)
    found = FIRST_STEP.search(said)
    assert found is not None, said
    phases = dict(part.rsplit(" ", 1) for part in found[2].split(", "))
    return float(found[1]), {name: float(seconds) for name, seconds in phases.items()}, cpu


def fresh_start_up(workers: int) -> tuple[float, dict[str, float], float]:
    """`start_up` in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        return start_up(workers, folder)


def medians(command: Sequence[str], folder: str, repeats: int) -> dict[str, float]:
    """Medians of a command that only looks."""
    runs = [ran(command, folder)[1:] for _ in range(repeats)]
    seconds, cpu = (round(statistics.median(column), 2) for column in zip(*runs, strict=True))
    return {"seconds": seconds, "cpu_s": cpu}


def main() -> None:
    """Print medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    repeats: int = options.repeats
    result: dict[str, object] = {"repeats": repeats}
    with tempfile.TemporaryDirectory() as folder:
        start_up(0, folder)  # builds the glyph store, byte-compiles what is new, and leaves something to list
        bound = medians(["-c", "import torch"], folder, repeats)
        result["import_torch"] = bound
        for look in LOOKS:
            result[look] = medians(["-m", "metaray", *look.split()], folder, repeats)
    for workers in options.workers:
        runs = [fresh_start_up(workers) for _ in range(repeats)]
        total = statistics.median(seconds for seconds, _, _ in runs)
        result[f"workers_{workers}"] = {
            "first_step_s": round(total, 2),
            "all_s": [seconds for seconds, _, _ in runs],
            "phases_s": {name: round(statistics.median(p[name] for _, p, _ in runs), 2) for name in runs[0][1]},
            "whole_run_cpu_s": round(statistics.median(cpu for _, _, cpu in runs), 2),
            "ratio_to_import_torch": round(total / bound["seconds"], 1),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
