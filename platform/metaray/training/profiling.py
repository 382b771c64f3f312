"""A profile of a few outer steps, by torch's profiler: no bit of the run depends on whether there is one."""

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.phases import marked_by
from metaray.records.run import PROFILE_TABLE, PROFILE_TRACE, Run
from metaray.records.storage import Storage
from metaray.training.outer_loop import Step
from metaray.training.profile_table import table
from metaray.training.reduction import Reducer

STEPS = 5
"""Steps that are profiled where nobody says how many."""
MOST_STEPS = 50
"""Each takes thousands of events, which are held in memory, and are read once the last is over."""
UNSEEN, UNRECORDED = 2, 1
WARM_UP = UNSEEN + UNRECORDED
"""Steps before: some as they are, since the first ones are slow, then one with a profiler that only warms up."""
SILENT = {"KINETO_LOG_LEVEL": "6"}
"""Else torch's profiler prints lines of its own."""


def steps_to_profile(wanted: bool | int, run: Run, experiment: Experiment) -> int:
    """How many outer steps are to be profiled in what is left of a run; 0 where that was done in an earlier call.

    Args:
        wanted: How many steps the user wants; True stands for `STEPS`, False for none.
        run: Run that may be begun already.
        experiment: Experiment that the run trains.

    Raises:
        InputError: If the run, or what is left of it, is too short.
    """
    count = STEPS if wanted is True else int(wanted)
    if count == 0:
        return 0
    if not 1 <= count <= MOST_STEPS:
        raise InputError(f"--profile {count}: give a number of outer steps from 1 to {MOST_STEPS}")
    done = experiment.num_steps if run.is_finished else max(run.saved_steps, default=0)
    left = experiment.num_steps - done
    if left >= WARM_UP + count:
        return count
    if run.storage.exists(PROFILE_TABLE):
        return 0
    needed = f"{WARM_UP} steps to warm up and {count} to look at"
    if run.is_finished:
        raise InputError(f"--profile {count} needs {needed}, but run {run.name!r} is finished: profile a new run")
    has = f"run {run.name!r} has {left} left of {experiment.num_steps}" if done else f"the run has {left} (num_steps)"
    most = left - WARM_UP
    right = f"--profile {most} would do" if most > 0 else "profile a new run" if done else "raise num_steps"
    raise InputError(f"--profile {count} needs {needed}, but {has}: {right}")


def profiled(
    steps: Iterator[Step],
    count: int,
    storage: Storage,
    device: torch.device,
    reducer: Reducer,
    say: Callable[[str], None],
) -> Generator[Step, None, None]:
    """Pass steps on; rank 0 profiles `count` of them after a warm-up, and writes what it found beside the run.

    A step lasts until the next one is asked for, so what is done with it belongs to it. Where steps end before there
    were enough, nothing is written.

    Args:
        steps: Steps of the outer loop.
        count: 0 profiles none.
        storage: Storage of the run.
        device: Device that computes them.
        reducer: Reducer of this rank.
        say: Told where the profile is.
    """
    if count and reducer.rank == 0:
        done: list[Step] = []
        with marked_by(record_function), _profiler(count, device) as profiler:
            for step in islice(steps, WARM_UP + count):
                yield step
                profiler.step()
                done.append(step)
        if len(done) == WARM_UP + count:
            try:
                _write(storage, profiler, _heading(done, device, reducer), reducer)
            except OSError as error:
                say(f"the profile could not be written: {error}. Training goes on without")
            else:
                say(f"profile: {storage.shown}/{PROFILE_TABLE}, and {PROFILE_TRACE} for https://ui.perfetto.dev")
    yield from steps


def _profiler(count: int, device: torch.device) -> profile:
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    return profile(
        activities=activities,
        schedule=schedule(wait=UNSEEN, warmup=UNRECORDED, active=count, repeat=1),
        # Episodes are sampled in a thread beside the one that computes. (With this there is no memory by operation.)
        experimental_config=torch._C._profiler._ExperimentalConfig(profile_all_threads=True),
    )


def _write(storage: Storage, profiler: profile, heading: str, reducer: Reducer) -> None:
    """The trace, then the table, which says that all is there."""
    reducer.mark("profiling")
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / Path(PROFILE_TRACE).name
        profiler.export_chrome_trace(str(trace))
        reducer.mark("profiling")
        storage.write(PROFILE_TRACE, trace.read_bytes())
    storage.write(PROFILE_TABLE, f"{heading}\n\n{table(profiler)}\n".encode())


def _heading(done: Sequence[Step], device: torch.device, reducer: Reducer) -> str:
    """What was profiled, how long it took, and what it would have taken otherwise."""
    seen = done[WARM_UP:]
    each_ms = 1000 * sum(step.duration_s for step in seen) / len(seen)
    # Whether the profiler itself distorts what it shows.
    before_ms = 1000 * done[UNSEEN - 1].duration_s
    where = f"rank {reducer.rank} of {reducer.world_size}, {device.type}, threads: {torch.get_num_threads()}"
    return (
        f"profile of steps {seen[0].step} to {seen[-1].step} on {where}\n"
        f"apart from evaluation and checkpoints {each_ms:.2f} ms a step, and {before_ms:.2f} ms in step "
        f"{done[UNSEEN - 1].step}, without the profiler; "
        f"peak memory {_peak_mib(device):.0f} MiB"
    )


def _peak_mib(device: torch.device) -> float:
    """The most that tensors took on a GPU since the process began; on a CPU, the most that the whole process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
