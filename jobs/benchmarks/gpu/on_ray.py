"""The same run on Ray: a worker that has the GPU, sampler actors, and what is killed on the way."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from jobs.benchmarks.faults import Disturbed, Pace, Until, sampler_killed, worker_killed
from jobs.benchmarks.gpu.execution import in_a_row
from jobs.benchmarks.gpu.experiments import experiment_of, networks
from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting, Skipped, Wrong
from jobs.benchmarks.gpu.two_ranks import Way, rank_main
from jobs.benchmarks.overhead import arrivals, platform_steps
from metaray.algorithms import MAML
from metaray.config import replace
from metaray.experiment.experiment import Checkpoint, Experiment
from metaray.records.events import Event
from metaray.records.result import Result, read_result
from metaray.records.storage import Storage
from metaray.training.device import set_execution
from metaray.training.in_process import InProcess
from metaray.training.placement import Placement, Workers

STEPS, SAMPLERS, PACE_S = 120, 4, 0.1
SETTLED = 20
"""Steps before, in which kernels are loaded, compiled and recorded, count for nothing."""

ABOUT = f"""{STEPS} outer steps of MAML on Conv4, with a checkpoint every ten: in this process; by `OnRay` with \
one worker (NCCL on a GPU) and {SAMPLERS} sampler actors; again, with a sampler actor and then the worker killed \
(SIGKILL). Digests of the parameters must be one. Seconds to the first step are from the call, Ray's start included \
where it starts then. "Step / bare step" is its median step, without the first {SETTLED}, against steps in \
a row on episodes that are there, without Ray. Two workers on one GPU are plain processes with the reducer of a Ray \
worker, since Ray Train gives each worker a GPU of its own: NCCL and gloo on tensors of the device, if they allow \
that, and gloo by way of the host's memory."""


def cases(setting: Setting) -> Iterator[Case]:
    """In process, on Ray, disturbed; then two processes."""
    yield Case("in process", partial(in_process, setting))
    yield Case(f"on Ray: 1 worker, {SAMPLERS} samplers", partial(on_ray, None, setting))
    yield Case("on Ray: a sampler, then the worker killed", partial(on_ray, both_killed, setting))
    ways: tuple[Way, ...] = ("nccl", "gloo", "gloo by way of the host")
    for way in ways:
        yield Case(f"two workers on one device, {way}", partial(two_workers, way, setting))


def experiment_on(setting: Setting) -> Experiment:
    """What is trained."""
    algorithm = MAML(inner_lr=0.05, inner_steps=1, batch_norm="transductive")
    network = networks(setting)["Conv4"]
    experiment = experiment_of(setting, network, algorithm, num_steps=STEPS)
    return replace(experiment, checkpoint=Checkpoint(every=10))


@lru_cache
def undisturbed(setting: Setting) -> Result:
    """Of the run in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return _alone(experiment_on(setting), folder, setting)


def _alone(experiment: Experiment, folder: str, setting: Setting) -> Result:
    storage = Storage(folder)
    InProcess(setting.device.type).train(experiment, storage, Disturbed())
    return read_result(storage)


def in_process(setting: Setting) -> Values:
    """What the others are compared with."""
    return _told(undisturbed(setting))


def _told(result: Result) -> Values:
    return {
        "sha256": result.parameters_sha256[:12],
        "episodes/s": result.episodes_per_s,
        "waiting %": 100 * result.wait_share,
    }


class Timed(Disturbed):
    """A display that notes when the first step was done.

    Attributes:
        first_s: seconds since the epoch; 0 before.
        steps_s: how long each step took.
    """

    first_s = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps_s: list[float] = []

    def on_event(self, event: Event) -> None:
        """Take the time."""
        if event.kind == "step":
            self.first_s = self.first_s or event.time_s
            self.steps_s.append(event.values["duration_s"])
        super().on_event(event)


@lru_cache
def bare_s(setting: Setting) -> float:
    """Seconds of a step of the same experiment, of many in a row on episodes that are there."""
    experiment = experiment_on(setting)
    set_execution(experiment, setting.device)
    steps = platform_steps(experiment, cycle(arrivals(experiment, 2)), setting.device)
    next(steps)
    return in_a_row(steps, setting)


def both_killed(run: Disturbed) -> Iterator[Until]:
    """A sampler actor, and later the worker."""
    yield from sampler_killed(run)
    yield from worker_killed(run)


def on_ray(script: Callable[[Disturbed], Iterator[Until]] | None, setting: Setting) -> Values:
    """A run on a Ray cluster of this machine's own.

    Raises:
        Wrong: if it ends in other parameters than the run in process.
    """
    if find_spec("ray") is None:
        raise Skipped("Ray is not installed here")
    from metaray.distributed.cluster import connect
    from metaray.distributed.trainer import OnRay

    expected = undisturbed(setting)
    placement = Placement(Workers(1, 1), SAMPLERS, device=setting.device.type)
    started_s = time.time()
    connect(placement)
    with tempfile.TemporaryDirectory() as folder:
        flag = Path(folder) / "slow"
        if script is not None:
            flag.touch()
        run, pace = Timed(script, flag), [Pace(str(flag), PACE_S)]
        storage = Storage(f"{folder}/run")
        OnRay(placement, pace).train(experiment_on(setting), storage, run)
        result = read_result(storage)
    values = _told(result) | {"first step after s": run.first_s - started_s}
    if script is None:
        values["step / bare step"] = statistics.median(run.steps_s[SETTLED:]) / bare_s(setting)
    if script is not None:
        values["worker back after s"] = run.recoveries[-1].back_s - run.recoveries[-1].acted_s if run.finished else None
    if not run.finished:
        raise Wrong(f"the run ended before all was killed: {run.notes}", values)
    if result.parameters_sha256 != expected.parameters_sha256:
        raise Wrong(f"in process it was {expected.parameters_sha256[:12]}", values)
    return values


def two_workers(way: Way, setting: Setting) -> Values:
    """Two processes that share the device.

    Raises:
        Skipped: where the library refuses.
        Wrong: if they end in other parameters than one.
    """
    if way == "nccl" and not setting.on_gpu:
        raise Skipped("NCCL joins GPUs alone")
    experiment = replace(experiment_on(setting), num_steps=10, most_workers=2)
    with tempfile.TemporaryDirectory() as folder:
        alone = _alone(experiment, f"{folder}/alone", setting)
        started = time.perf_counter()
        try:
            spawn(rank_main, args=(folder, way, experiment.to_json(), setting.device.type), nprocs=2)
        except ProcessRaisedException as error:
            if way == "gloo by way of the host":
                raise
            raise Skipped(f"{way} refuses: {str(error).strip().splitlines()[-1]}") from error
        seconds = time.perf_counter() - started
        digests = [(Path(folder) / f"{rank}.sha256").read_text() for rank in range(2)]
    values: Values = {"sha256": alone.parameters_sha256[:12], "s": seconds}
    if {alone.parameters_sha256} != set(digests):
        raise Wrong(f"the workers came to {' and '.join(digest[:12] for digest in digests)}", values)
    return values


SECTION = Section("ray", ABOUT, cases)
