"""Whole commands: two workers of Ray's against one, and start-up."""

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jobs.benchmarks.cpu import at_once
from jobs.benchmarks.cpu.cases import FULL, METHODS, Case, experiment_of
from jobs.benchmarks.cpu.fresh import ROOT
from jobs.benchmarks.cpu.runs import Job, Setting
from jobs.benchmarks.gpu.supervise import attended
from metaray.records.journal import read_journal
from metaray.records.result import RESULT, Result
from metaray.records.storage import Storage

WORKERS, START_UP = "workers", "start-up"
WARM_UP = 5
ROUNDS = 2
ALONE_S = 8.0
TIMEOUT_S = 400.0
WORKERS_ABOUT = f"""Real runs of `metaray train` on a Ray cluster of their own, {ROUNDS} with one worker and {ROUNDS} \
with two, alternately, two sampler actors each, a thread a worker: {METHODS[0].title}, 8 episodes a step. Episodes a \
second are of the median time between steps by the clock, after {WARM_UP} steps; all runs end with the same \
parameters. The bound: meta-steps of 4 episodes in one process, in two at once, and in one of two threads, without any \
platform around."""
START_UP_ABOUT = "`jobs/benchmarks/start_up.py`, whose docstring says how: three fresh starts each, after \
one that is not counted: medians (quartiles)."


def worker_jobs(setting: Setting) -> Iterator[Job]:
    """A single one."""
    steps = 60 if setting.size == FULL else 12
    case = METHODS[0]._replace(meta_batch_size=8)
    told = {"steps": steps, "rounds": ROUNDS, "size": setting.size._asdict()}
    yield Job(WORKERS, "2 workers against 1", partial(workers, case, steps, setting), told)


def workers(case: Case, steps: int, setting: Setting) -> dict[str, Any]:
    """Episodes a second by the number of workers.

    Raises:
        RuntimeError: if a run fails, or ends with other parameters.
    """
    experiment = experiment_of(case, setting.scratch, setting.size, num_steps=steps)
    recipe = setting.scratch / "recipe.json"
    recipe.write_text(experiment.to_json())
    found: dict[str, list[float]] = {"1": [], "2": []}
    digests: set[str] = set()
    for number in range(ROUNDS):
        for count, rates in found.items():
            folder = setting.scratch / f"workers-{count}-{number}"
            step_s, digest = trained(recipe, count, folder)
            rates.append(case.meta_batch_size / step_s)
            digests.add(digest)
            setting.say(f"  {count} workers: {rates[-1]:.1f} episodes/s")
    if len(digests) > 1:
        raise RuntimeError(f"the same steps, but other parameters: {', '.join(sorted(digests))}")
    bound = at_once.rates(METHODS[0], setting, ROUNDS, seconds=min(setting.seconds, ALONE_S))
    return {"episodes_per_s": found, "bound_episodes_per_s": bound}


def trained(recipe: Path, count: str, folder: Path) -> tuple[float, str]:
    """Median seconds between the steps of one run, and the SHA-256 of its parameters."""
    folder.mkdir()
    words = ["train", str(recipe), "--workers", count, "--no-register", "--tracker", "none", "--run", "bench"]
    command = [sys.executable, "-m", "metaray", *words, "--storage", str(folder / "runs"), "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (folder / "log").open("w+") as log:
        ended = attended(command, TIMEOUT_S, cwd=folder, env=environment, stdout=log, stderr=log)
        log.seek(0)
        if ended:
            raise RuntimeError(f"a run with {count} workers: {ended}: {log.read()[-2000:]}")
    storage = Storage(str(folder / "runs" / "bench"))
    times = [entry.time_ms / 1e3 for entry in read_journal(storage) if entry.key == "train/loss"][WARM_UP:]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(gaps), Result.from_json(storage.read(RESULT).decode()).parameters_sha256


def start_up_jobs(setting: Setting) -> Iterator[Job]:
    """A single one."""
    repeats = 3 if setting.size == FULL else 1
    words = ["--repeats", str(repeats), "--workers", "0", "2"]
    yield Job(START_UP, "from command to first step", partial(start_up, words), {"words": words})


def start_up(words: list[str]) -> dict[str, Any]:
    """What its script finds."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "benchmarks" / "start_up.py"), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"start_up.py failed: {done.stderr[-2000:]}")
    return {"spreads": of_one_checkout(parsed_json(done.stdout))}


def of_one_checkout(found: dict[str, Any]) -> dict[str, Any]:
    """What `start_up.py` found without `--against`: by command, median and quartiles of what it measures."""
    return {name: next(iter(value.values())) for name, value in found.items() if isinstance(value, dict)}


def parsed_json(text: str) -> dict[str, Any]:
    """The JSON object at the end of what a script prints."""
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found
