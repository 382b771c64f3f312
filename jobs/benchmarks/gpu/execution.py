"""What each way of computing a chunk costs: the step-time table, of steps in a row, as a run has them."""

import gc
import math
import statistics
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import cycle, product
from typing import NamedTuple

import torch

from jobs.benchmarks.gpu import ceilings
from jobs.benchmarks.gpu.ceilings import Arithmetic
from jobs.benchmarks.gpu.experiments import Network, experiment_of, networks
from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting, Skipped, Wrong
from jobs.benchmarks.overhead import arrivals, platform_steps
from jobs.benchmarks.plain import plain_steps
from metaray.algorithms import MAML, Algorithm, ProtoNet
from metaray.config import replace
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch
from metaray.experiment.experiment import Experiment
from metaray.training.device import set_execution

BY_HAND = "by hand"
EXECUTIONS = ("graph", "compiled", "batched", "each")
SAME_LOSS = {"float32": 1e-2, "TF32": 5e-2, "bfloat16": 5e-2}
ROUNDS, ROUND_S, MOST_STEPS, WARM_UP = 3, 0.6, 200, 2
SAMPLED, SAMPLES = 32, 8

ABOUT = f"""Outer steps in a row, as a run has them, on episodes that are sampled beforehand: nobody waits for the \
device but the loop itself. Conv4 (64 channels, max-pool) on grey 28x28 images, 5-way 1-shot, 15 queries a class, 32 \
episodes a step; ResNet-12 on colour 32x32 images, 8 episodes a step; second order. By the field `execution` and by \
how many workers may take part (`most_workers`), which cuts the meta-batch into so many chunks. "By hand" is a loop in \
plain PyTorch, task by task, the stand-in for learn2learn, which takes as long: 448 and 1788 ms for one and five inner \
steps on an H200. The first loss must be that by hand to {SAME_LOSS["float32"]:g} (in float32). "First s" is the time \
until the first loss is known: compiling, recording and a step or two. The median of {ROUNDS} rounds of {ROUND_S:g} s. \
The bound is the arithmetic of matrix products and convolutions at the speed of the device's own large product."""


class Workload(NamedTuple):
    """What is trained.

    Attributes:
        network: key of `networks`.
        algorithm: of it.
        spec: ways, shots and queries.
    """

    network: str
    algorithm: Algorithm
    spec: tuple[int, int, int] = (5, 1, 15)


def _maml(steps: int, batch_norm: str = "transductive") -> MAML:
    return MAML.parse({"inner_lr": 0.05, "inner_steps": steps, "batch_norm": batch_norm}, where="maml")


ONE, FIVE = "MAML, 1 step", "MAML, 5 steps"
INDUCTIVE = {ONE: f"{ONE}, inductive", FIVE: f"{FIVE}, inductive"}
PROTONET, RESNET = "ProtoNet, 20-way 5-shot", "ResNet-12, MAML, 1 step, 5-shot"
WORKLOADS = {
    ONE: Workload("Conv4", _maml(1)),
    FIVE: Workload("Conv4", _maml(5)),
    INDUCTIVE[ONE]: Workload("Conv4", _maml(1, "inductive")),
    INDUCTIVE[FIVE]: Workload("Conv4", _maml(5, "inductive")),
    PROTONET: Workload("Conv4", ProtoNet(batch_norm="transductive"), (20, 5, 15)),
    RESNET: Workload("ResNet-12", _maml(1), (5, 5, 15)),
}


class Kind(NamedTuple):
    """What is timed.

    Attributes:
        workload: key of WORKLOADS.
        execution: one of EXECUTIONS, or BY_HAND.
        workers: that may take part: so many chunks.
        arithmetic: of the network.
    """

    workload: str
    execution: str
    workers: int = 1
    arithmetic: Arithmetic = "float32"

    @property
    def name(self) -> str:
        """In tables."""
        if self.execution == BY_HAND:
            return f"{self.workload}: {BY_HAND}"
        return f"{self.workload}: {self.execution}, {self.arithmetic}, most_workers={self.workers}"


def kinds() -> list[Kind]:
    """All that is timed, the most important first: what is left when the time is over is lost."""
    main, fast = (ONE, FIVE), ("graph", "compiled", "batched")
    found = [Kind(workload, BY_HAND) for workload in main]
    found += [Kind(workload, execution) for execution, workload in product(fast, main)]
    found += [Kind(workload, "graph", 4) for workload in main]
    found += [Kind(workload, "graph", arithmetic="bfloat16") for workload in main]
    found += [Kind(workload, execution) for workload in (PROTONET, RESNET) for execution in (BY_HAND, *fast)]
    found += [Kind(INDUCTIVE[workload], "graph") for workload in main]
    found += [Kind(workload, "graph", 2) for workload in main]
    found += [Kind(workload, "batched", workers) for workers, workload in product((4, 2), main)]
    found += [Kind(INDUCTIVE[workload], "batched") for workload in main]
    found += [Kind(w, execution, arithmetic="bfloat16") for execution in ("compiled", "batched") for w in main]
    found += [Kind(w, "compiled", workers) for workers, w in product((4, 2), main)]
    found += [Kind(workload, "graph", arithmetic="TF32") for workload in main]
    found += [Kind(workload, "each") for workload in (*main, PROTONET, RESNET)]
    return list(dict.fromkeys(found))


SMALL = [
    Kind(ONE, BY_HAND),
    Kind(ONE, "batched"),
    Kind(ONE, "batched", 4),
    Kind(ONE, "batched", arithmetic="bfloat16"),
    Kind(ONE, "each", 2),
    Kind(ONE, "graph"),
    Kind(INDUCTIVE[ONE], "batched"),
    Kind(PROTONET, "batched"),
    Kind(PROTONET, BY_HAND),
]


def cases(setting: Setting) -> Iterator[Case]:
    """The ceiling of float32, how fast episodes come, then every kind; where all is small, some of each."""
    peaks: dict[str, float] = {}

    def ceiling(arithmetic: Arithmetic) -> Values:
        peaks[arithmetic] = ceilings.matmul_flops_per_s(arithmetic, setting)
        return {"TFLOP/s": peaks[arithmetic] / 1e12}

    for arithmetic in ("float32", "bfloat16"):
        yield Case(f"matrix product, {arithmetic}", partial(ceiling, arithmetic))
    for kind in SMALL if setting.small else kinds():
        yield Case(kind.name, partial(cost, kind, peaks, setting))
    for rows in (False, True):
        what = "rows of the store" if rows else "whole"
        yield Case(f"sampling in one process, {what}", partial(sampling, setting, rows=rows))


def cost(kind: Kind, peaks: dict[str, float], setting: Setting) -> Values:
    """What one kind of step costs.

    Raises:
        Skipped: if it cannot be computed so here.
        Wrong: if the loop by hand has another loss.
    """
    experiment = experiment_for(kind, setting)
    given, by_hand = given_to(kind.workload, setting), kind.execution == BY_HAND
    set_execution(experiment, setting.device)
    ceilings.allow_tf32(kind.arithmetic == "TF32")
    gc.collect()
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)
    try:
        steps = (plain_steps if by_hand else platform_steps)(experiment, cycle(given), setting.device)
        started = time.perf_counter()
        loss = next(steps)
        first_s = time.perf_counter() - started
        each_s = in_a_row(steps, setting)
    finally:
        ceilings.allow_tf32(False)
    values: Values = {
        "ms a step": 1e3 * each_s,
        "episodes/s": experiment.meta_batch_size / each_s,
        "first s": first_s,
        "peak GiB": torch.cuda.max_memory_allocated(setting.device) / 2**30 if setting.on_gpu else None,
    }
    if kind.arithmetic in peaks:
        bound_s = experiment.meta_batch_size * _flops(kind.workload, setting) / peaks[kind.arithmetic]
        values |= {"bound ms": 1e3 * bound_s, "share of the bound": bound_s / each_s}
    return values if by_hand else values | same_loss(kind, loss, values, setting)


def in_a_row(steps: Iterator[float], setting: Setting) -> float:
    """Seconds a step, of many that nobody waits for one by one; the median of some rounds.

    Raises:
        Wrong: if a loss is no number, since the time of such a step says nothing.
    """
    found, round_s = [], ROUND_S / 10 if setting.small else ROUND_S
    for number in range(1 + ROUNDS):
        setting.synchronize()
        started, count = time.perf_counter(), 0
        while count < (WARM_UP if number == 0 else MOST_STEPS):
            loss = next(steps)
            count += 1
            if not math.isfinite(loss):
                raise Wrong(f"the loss is {loss}", {})
            if time.perf_counter() - started > round_s:
                break
        setting.synchronize()
        found.append((time.perf_counter() - started) / count)
    return statistics.median(found[1:])


def same_loss(kind: Kind, loss: float, values: Values, setting: Setting) -> Values:
    """How far the first loss is from that by hand in float32.

    Raises:
        Wrong: if it is another one; with `values` too. By hand batch norm is transductive: others are not compared.
    """
    if WORKLOADS[kind.workload].algorithm.batch_norm != "transductive":
        return {}
    expected = _loss_by_hand(kind.workload, setting)
    off = abs(loss - expected) / abs(expected)
    if not off <= SAME_LOSS[kind.arithmetic]:
        raise Wrong(f"the first loss is {loss:.6g}, that by hand {expected:.6g}", {**values, "loss off by": off})
    return {"loss off by": off}


def experiment_for(kind: Kind, setting: Setting) -> Experiment:
    """What is trained, so that it is computed as the kind says.

    Raises:
        Skipped: if that cannot be had here.
    """
    network, workload = networks(setting)[WORKLOADS[kind.workload].network], WORKLOADS[kind.workload]
    experiment = experiment_of(
        setting,
        network,
        workload.algorithm,
        dtype="bfloat16" if kind.arithmetic == "bfloat16" else "float32",
    )
    ways, shots, queries = workload.spec
    episodes = EpisodeSpec(ways=ways, shots=shots, queries=3 if setting.small else queries)
    experiment = replace(experiment, episodes=episodes, most_workers=min(kind.workers, experiment.meta_batch_size))
    return experiment if kind.execution == BY_HAND else executed(experiment, kind.execution, setting)


def executed(experiment: Experiment, execution: str, setting: Setting) -> Experiment:
    """The experiment, computed in that way; of a metaray without the field, in the two ways that it has always had.

    Raises:
        Skipped: if that cannot be had here.
    """
    if execution == "graph" and not setting.on_gpu:
        raise Skipped("CUDA graphs need a GPU")
    if "execution" in Experiment.model_fields:
        return replace(experiment, execution=execution)
    if execution not in ("each", "batched"):
        raise Skipped("this metaray has no field `execution`")
    return replace(experiment, most_workers=None, chunk_size=1) if execution == "each" else experiment


def sampling(setting: Setting, *, rows: bool) -> Values:
    """How many episodes a process samples, 5-way 1-shot with 15 queries a class."""
    experiment = experiment_of(setting, _conv4(setting), WORKLOADS[ONE].algorithm)
    taken = []
    for step in range(2 if setting.small else SAMPLES):
        indices = range(step * SAMPLED, (step + 1) * SAMPLED)
        started = time.perf_counter()
        sample_meta_batch(experiment.source, experiment.episodes, "meta-train", 0, indices, rows=rows)
        taken.append(time.perf_counter() - started)
    return {"episodes/s": SAMPLED / statistics.median(taken)}


def _conv4(setting: Setting) -> Network:
    return networks(setting)["Conv4"]


@lru_cache
def given_to(workload: str, setting: Setting) -> list[Arrival]:
    """Two meta-batches, the same for all that is timed of a workload."""
    return arrivals(experiment_for(Kind(workload, BY_HAND), setting), 2)


@lru_cache
def _flops(workload: str, setting: Setting) -> int:
    experiment = experiment_for(Kind(workload, BY_HAND), setting)
    return ceilings.flops_of_an_episode(experiment, setting, given_to(workload, setting)[0].batch)


@lru_cache
def _loss_by_hand(workload: str, setting: Setting) -> float:
    experiment = experiment_for(Kind(workload, BY_HAND), setting)
    return next(plain_steps(experiment, iter(given_to(workload, setting)), setting.device))


SECTION = Section("execution", ABOUT, cases)
