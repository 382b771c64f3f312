"""What two processes do at once on this machine, over what one does alone: no more can two workers. And two threads.

    python -m jobs.benchmarks.cpu.at_once CASE FOLDER SECONDS --threads N [--tiny]

Says that it is ready, waits for a line, takes meta-steps for so many seconds by the clock, and prints how many episodes
a second those were.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from jobs.benchmarks.cpu.cases import CASES, FULL, TINY, Case, experiment_of
from jobs.benchmarks.cpu.fresh import ROOT
from jobs.benchmarks.cpu.runs import Setting
from jobs.benchmarks.overhead import arrivals, platform_steps
from jobs.benchmarks.trials import CPU
from metaray.training.device import set_execution

READY = "ready"
THREADED = "1 of 2 threads"
WAYS = {"1": (1, 1), "2": (2, 1), THREADED: (1, 2)}
"""Processes, and threads of each."""


def rates(case: Case, setting: Setting, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Episodes a second of all processes together, by the name in `WAYS`, in alternating turns.

    Raises:
        RuntimeError: if one of them fails.
    """
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, (count, threads) in WAYS.items():
            found[name].append(sum(at_once(case, setting, count, seconds, threads)))
    return found


def at_once(case: Case, setting: Setting, count: int, seconds: float, threads: int = 1) -> list[float]:
    """Episodes a second of each of so many processes that begin together."""
    told = ["--threads", str(threads), *(["--tiny"] if setting.size == TINY else [])]
    words = [sys.executable, "-m", __name__, case.title, str(setting.scratch), str(seconds), *told]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    words, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            for _ in range(count)
        ]
        for process in started:
            _line(process, READY)
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [float(_line(process)) for process in started]


def _line(process: subprocess.Popen[str], expected: str | None = None) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line or expected not in (None, line):
        raise RuntimeError(f"a process of the bound said {line!r} and ended with {process.wait()}")
    return line


def alone(case: Case, folder: Path, threads: int, *, tiny: bool) -> Iterator[int]:
    """Episodes of each meta-step, for ever, without any platform around."""
    experiment = experiment_of(case, folder, TINY if tiny else FULL, threads_per_worker=threads)
    set_execution(experiment, CPU)  # as workers do: malloc keeps what tensors free
    for _ in platform_steps(experiment, itertools.cycle(arrivals(experiment, 1)), CPU):
        yield experiment.meta_batch_size


def main() -> None:
    """See the module's docstring."""
    title, folder, seconds, _, threads, *rest = sys.argv[1:]
    (case,) = (case for case in CASES if case.title == title)
    steps = alone(case, Path(folder), int(threads), tiny="--tiny" in rest)
    for _ in range(2):
        next(steps)
    print(READY, flush=True)
    sys.stdin.readline()
    episodes, times = 0, [time.perf_counter()]
    while times[-1] - times[0] < float(seconds):
        episodes = next(steps)
        times.append(time.perf_counter())
    gaps = [after - before for before, after in itertools.pairwise(times)]
    print(episodes / statistics.median(gaps), flush=True)


if __name__ == "__main__":
    main()
