"""Seconds from command to first training step, and what takes them.

    python jobs/benchmarks/start_up.py [--repeats 5] [--workers 0 2]

Starts `metaray train` in a fresh process and a fresh folder each time, so that each run also creates its MLflow
database. The bound in the same run is an interpreter that imports torch and nothing else.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "glyphs.py"
TINY = ["num_steps=2", "evaluation.val_episodes=2", "evaluation.test_episodes=2"]
FIRST_STEP = re.compile(r"first step after ([0-9.]+) s: (.*)")


def start_up(workers: int) -> tuple[float, dict[str, float]]:
    """One run: seconds to the first step, and seconds by phase."""
    command = [sys.executable, "-m", "metaray", "train", f"{RECIPE}:demo", "--workers", str(workers), "--no-register"]
    for setting in TINY:
        command += ["--set", setting]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found = FIRST_STEP.search(done.stderr)
    assert found is not None, done.stderr
    phases = dict(part.rsplit(" ", 1) for part in found[2].split(", "))
    return float(found[1]), {name: float(seconds) for name, seconds in phases.items()}


def import_torch() -> float:
    """The bound."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    start_up(0)  # builds the glyph store and byte-compiles what is new
    bound = statistics.median(import_torch() for _ in range(options.repeats))
    result: dict[str, object] = {"repeats": options.repeats, "import_torch_s": round(bound, 2)}
    for workers in options.workers:
        runs = [start_up(workers) for _ in range(options.repeats)]
        total = statistics.median(seconds for seconds, _ in runs)
        result[f"workers_{workers}"] = {
            "first_step_s": round(total, 2),
            "all_s": [seconds for seconds, _ in runs],
            "phases_s": {name: round(statistics.median(p[name] for _, p in runs), 2) for name in runs[0][1]},
            "ratio_to_import_torch": round(total / bound, 1),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
