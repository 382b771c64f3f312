"""What Ray and a job cost on top of training in process: to the first step, by step, and after the last.

    python -m jobs.benchmarks.platform_overhead STORE [--steps 200] [--repeats 3] [--submit http://127.0.0.1:8265]

The same steps of Omniglot's 5-way 1-shot MAML, a thread a worker, by `metaray train --workers 0`, by `--workers 1` on a
Ray cluster of its own, and, where --submit names a cluster's dashboard, by `metaray submit train --workers 1`. All are
timed from outside, by when their lines arrive; the time of a step is the run's own figure. The three take turns, so
that a machine that slows down slows all of them. Prints medians and ratios to training in process as JSON.
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

JOBS = Path(__file__).resolve().parents[1]
FIRST, SPEED = re.compile(r"first step after "), re.compile(r"^speed: ([\d.]+) episodes/s", re.MULTILINE)
META_BATCH = 8
KINDS = {
    "in process": ("train", "recipe.py:recipe", "--workers", "0"),
    "ray": ("train", "recipe.py:recipe", "--workers", "1"),
    "submit": ("submit", "train", "recipe.py:recipe", "--workers", "1"),
}


def timed(kind: str, store: Path, steps: int, submit: str | None) -> dict[str, float]:
    """Seconds of one run."""
    settings = [f"source.path={store}", f"num_steps={steps}", f"evaluation.every={steps}"]
    settings += ["evaluation.val_episodes=2", "evaluation.test_episodes=2"]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.py"
        recipe.write_text(
            "from jobs.omniglot import maml_5way_1shot\n\n\ndef recipe():\n    return maml_5way_1shot()\n"
        )
        (Path(folder) / "jobs").mkdir()
        (Path(folder) / "jobs" / "omniglot.py").write_text((JOBS / "omniglot.py").read_text())
        words = [*KINDS[kind], *(word for setting in settings for word in ("--set", setting)), "--no-register"]
        if kind == "submit":
            assert submit is not None
            words += ["--address", submit, "--follow", "--local-to-head"]
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "metaray", *words],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines: list[tuple[float, str]] = [(time.perf_counter() - started, line) for line in process.stdout]
        ended = time.perf_counter() - started
        assert process.wait() == 0, "".join(line for _, line in lines)
    first = next(at for at, line in lines if FIRST.search(line))
    last = next(at for at, line in lines if line.startswith(f"step {steps}/{steps}"))
    speed = SPEED.search("".join(line for _, line in lines))
    assert speed is not None
    return {"first_step_s": first, "step_s": META_BATCH / float(speed[1]), "after_last_step_s": ended - last}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="Omniglot's class store")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--submit", help="URL of a cluster's dashboard")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if kind != "submit" or arguments.submit]
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(arguments.repeats):
        for kind in kinds:
            found[kind].append(timed(kind, arguments.store.absolute(), arguments.steps, arguments.submit))
            print(kind, found[kind][-1], file=sys.stderr, flush=True)
    medians = {
        kind: {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}
        for kind, runs in found.items()
    }
    ratios = {kind: round(medians[kind]["step_s"] / medians["in process"]["step_s"], 4) for kind in kinds}
    print(json.dumps({"repeats": arguments.repeats, "medians": medians, "step_ratio": ratios}, indent=2))


if __name__ == "__main__":
    main()
