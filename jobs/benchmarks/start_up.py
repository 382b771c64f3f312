"""Seconds from command to first training step, and what takes them; and of commands that only look.

    python jobs/benchmarks/start_up.py [--repeats 5] [--workers 0 2] [--against CHECKOUT] [--out FILE]

Starts `metaray train` in a fresh process and a fresh folder each time, so that each run also creates its MLflow
database. With `--against`, another checkout takes turns with this one, with the same packages. The bound in the same
run is an interpreter that imports torch and nothing else.

Beside the seconds on the clock stand those of CPU, which say nearly the same on a machine that does other work
meanwhile: of the command and of every process below it, Ray's own among them, until the first step is done. They are
read a few times a second, so that of each process that ends before then some hundredths are missing.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

HERE = Path(__file__).resolve().parents[2]
TINY = ["num_steps=2", "evaluation.val_episodes=2", "evaluation.test_episodes=2"]
LOOKS = ("--version", "recipes", "runs list", "registry list")
FIRST_STEP = re.compile(r"first step after ([0-9.]+) s: (.*)")
LOOK_EVERY_S = 0.1


class Ran(NamedTuple):
    """A command.

    Attributes:
        said: on stderr.
        seconds: on the clock.
        cpu_s: of it and all processes below, to its end.
        first_cpu_s: likewise, until it spoke of its first step; those to its end where it did not.
    """

    said: str
    seconds: float
    cpu_s: float
    first_cpu_s: float


class Clock:
    """Seconds of CPU of a process and of all that have been below it."""

    def __init__(self, pid: int) -> None:
        self._top, self._known = psutil.Process(pid), dict[tuple[int, float], float]()

    def read(self) -> float:
        """Up to now."""
        try:
            processes = [self._top, *self._top.children(recursive=True)]
        except psutil.Error:
            processes = []
        for process in processes:
            try:
                times = process.cpu_times()
                self._known[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._known.values())


def ran(command: Sequence[str], folder: str, checkout: Path) -> Ran:
    """Run a command of Python's with the packages of a checkout.

    Raises:
        CalledProcessError: if it fails.
    """
    paths = [str(checkout / "platform"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    started, lines = time.perf_counter(), list[str]()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
    reader.start()
    clock, cpu_s, first_cpu_s = Clock(process.pid), 0.0, None
    while process.poll() is None:
        cpu_s = clock.read()
        if first_cpu_s is None and any(FIRST_STEP.search(line) for line in tuple(lines)):
            first_cpu_s = cpu_s
        time.sleep(LOOK_EVERY_S)
    seconds = time.perf_counter() - started
    reader.join()
    process.stderr.close()
    said = "".join(lines)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=said)
    return Ran(said, seconds, cpu_s, cpu_s if first_cpu_s is None else first_cpu_s)


def start_up(workers: int, folder: str, checkout: Path) -> dict[str, float]:
    """One run of two steps: seconds to the first, also by phase, and of CPU."""
    command = ["-m", "metaray", "train", f"{checkout}/jobs/glyphs.py:demo", "--workers", str(workers), "--no-register"]
    for setting in TINY:
        command += ["--set", setting]
    done = ran(command, folder, checkout)
    found = FIRST_STEP.search(done.said)
    assert found is not None, done.said
    phases = dict(part.rsplit(" ", 1) for part in found[2].split(", "))
    sums = {"first_step_s": float(found[1]), "first_step_cpu_s": done.first_cpu_s, "whole_run_cpu_s": done.cpu_s}
    return sums | {f"{name}_s": float(seconds) for name, seconds in phases.items()}


def fresh_start_up(workers: int, checkout: Path) -> dict[str, float]:
    """`start_up` in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        return start_up(workers, folder, checkout)


def looked(command: Sequence[str], folder: str, checkout: Path) -> dict[str, float]:
    """A command that only looks."""
    done = ran(command, folder, checkout)
    return {"seconds": done.seconds, "cpu_s": done.cpu_s}


def in_turns(
    checkouts: Iterable[Path], repeats: int, once: Callable[[Path], dict[str, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """By checkout, each number's median and quartiles over the repeats; who is first changes from turn to turn."""
    order = list(checkouts)
    runs: dict[str, list[dict[str, float]]] = {str(checkout): [] for checkout in order}
    for turn in range(repeats):
        for checkout in order if turn % 2 == 0 else reversed(order):
            runs[str(checkout)].append(once(checkout))
    return {
        name: {key: spread([one.get(key, 0.0) for one in found]) for key in found[0]} for name, found in runs.items()
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": round(middle, 2), "lower": round(low, 2), "upper": round(high, 2)}


def measured(options: argparse.Namespace) -> dict[str, object]:
    """All of it."""
    repeats: int = options.repeats
    checkouts = [HERE, *([options.against.resolve()] if options.against else [])]
    load = [round(value, 2) for value in os.getloadavg()]
    result: dict[str, object] = {"repeats": repeats, "load_before": load, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        for checkout in checkouts:  # builds the glyph store, byte-compiles what is new, and leaves something to list
            start_up(0, folder, checkout)
        result["import torch"] = in_turns([HERE], repeats, partial(looked, ["-c", "import torch"], folder))
        for look in LOOKS:
            result[look] = in_turns(checkouts, repeats, partial(looked, ["-m", "metaray", *look.split()], folder))
    for workers in options.workers:
        result[f"workers_{workers}"] = in_turns(checkouts, repeats, partial(fresh_start_up, workers))
    return result


def main() -> None:
    """Print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="another checkout, which takes turns with this"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes besides")
    options = parser.parse_args()
    text = json.dumps(measured(options), indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
