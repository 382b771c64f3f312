"""What an outer step costs: time, share of what the device could do, memory."""

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
from jobs.benchmarks.gpu.ceilings import ARITHMETICS, Arithmetic
from jobs.benchmarks.gpu.experiments import Network, experiment_of, networks
from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting, Wrong
from jobs.benchmarks.overhead import arrivals, platform_steps
from jobs.benchmarks.plain import plain_steps
from metaray.algorithms import ANIL, MAML, R2D2, Algorithm, ProtoNet
from metaray.episodes.prefetch import Arrival
from metaray.experiment.experiment import Experiment
from metaray.training.device import set_execution

ALGORITHMS: dict[str, Algorithm] = {
    "MAML, 1 step": MAML(inner_lr=0.05, inner_steps=1, batch_norm="transductive"),
    "MAML, 5 steps": MAML(inner_lr=0.05, inner_steps=5, batch_norm="transductive"),
    "ANIL": ANIL(inner_lr=0.05, inner_steps=1, batch_norm="transductive"),
    "ProtoNet": ProtoNet(batch_norm="transductive"),
    "R2D2": R2D2(batch_norm="transductive"),
}
MEASURED_S, SLOW_S, MOST_TIMINGS = 2.0, 0.5, 7
SAME_LOSS = 1e-2

ABOUT = f"""One outer step of metaray's loop on episodes that are sampled beforehand: 5-way 1-shot, 15 queries a \
class, second order, transductive batch norm. Conv4 (64 channels, max-pool) on grey 28x28 images, 32 episodes a step; \
ResNet-12 on colour 32x32 images, 8 episodes a step. A chunk of 1, of a quarter or of the whole meta-batch (the \
default on a GPU). "By hand" is a loop in plain PyTorch, task by task, whose first loss must be metaray's to \
{SAME_LOSS:g}. Medians of 2 to {MOST_TIMINGS} steps after two to warm up (one where a step is slow), each waited for. \
The bound is the arithmetic of matrix products and convolutions alone, counted operation by operation, at the speed of \
the device's own large matrix product. Memory is the most that tensors took at once."""


class Kind(NamedTuple):
    """What is timed.

    Attributes:
        network: of what.
        algorithm: key of ALGORITHMS.
        chunk: "1", "quarter", "whole" or "by hand".
        arithmetic: of the network.
    """

    network: str
    algorithm: str
    chunk: str
    arithmetic: Arithmetic

    @property
    def name(self) -> str:
        """In tables."""
        how = self.chunk if self.chunk == "by hand" else f"chunk {self.chunk}"
        return f"{self.network}, {self.algorithm}, {how}, {self.arithmetic}"


def kinds() -> list[Kind]:
    """All that is timed, the most important first: what is left when the time is over is lost."""
    found: list[Kind] = []
    for network in ("Conv4", "ResNet-12"):
        for algorithm in ("MAML, 1 step", "MAML, 5 steps"):
            found += [Kind(network, algorithm, c, a) for c in ("quarter", "whole") for a in ARITHMETICS]
            found.append(Kind(network, algorithm, "by hand", "float32"))
    for network in ("Conv4", "ResNet-12"):
        for algorithm in ("ProtoNet", "R2D2", "ANIL"):
            found += [Kind(network, algorithm, "quarter", arithmetic) for arithmetic in ARITHMETICS]
            found.append(Kind(network, algorithm, "by hand", "float32"))
    found += [Kind(n, a, "1", "float32") for n in ("Conv4", "ResNet-12") for a in ALGORITHMS]
    found += [Kind(*each) for each in product(("Conv4", "ResNet-12"), ALGORITHMS, CHUNKS, ARITHMETICS)]
    return list(dict.fromkeys(found))


CHUNKS = {"whole": 1, "quarter": 4, "1": 0}
"""Into how many chunks a meta-batch is cut; 0 into single episodes."""


SMALL = [
    Kind("Conv4", "MAML, 1 step", "quarter", "float32"),
    Kind("Conv4", "MAML, 5 steps", "whole", "bfloat16"),
    Kind("ResNet-12", "ANIL", "1", "TF32"),
    *(Kind("Conv4", algorithm, "by hand", "float32") for algorithm in ALGORITHMS),
]


def cases(setting: Setting) -> Iterator[Case]:
    """The ceilings, then every kind; where all is small, one of each."""
    peaks: dict[str, float] = {}
    for arithmetic in ARITHMETICS:
        yield Case(f"matrix product, {arithmetic}", partial(product_speed, arithmetic, peaks, setting))
    yield Case("copy", partial(copy_speed, setting))
    for kind in SMALL if setting.small else kinds():
        yield Case(kind.name, partial(cost, kind, peaks, setting))


def product_speed(arithmetic: Arithmetic, peaks: dict[str, float], setting: Setting) -> Values:
    """A ceiling, which is kept in `peaks` too."""
    peaks[arithmetic] = ceilings.matmul_flops_per_s(arithmetic, setting)
    return {"TFLOP/s": peaks[arithmetic] / 1e12}


def copy_speed(setting: Setting) -> Values:
    """A ceiling."""
    return {"TB/s": ceilings.copy_bytes_per_s(setting) / 1e12}


def cost(kind: Kind, peaks: dict[str, float], setting: Setting) -> Values:
    """What one kind of step costs.

    Raises:
        Wrong: if the loop by hand has another loss.
    """
    network = networks(setting)[kind.network]
    experiment = experiment_of(
        setting,
        network,
        ALGORITHMS[kind.algorithm],
        chunk_size=chunk_size_of(kind, network),
        dtype="bfloat16" if kind.arithmetic == "bfloat16" else "float32",
    )
    given = given_to(network, setting)
    set_execution(experiment, setting.device)
    ceilings.allow_tf32(kind.arithmetic == "TF32")
    try:
        values = measured(kind, experiment, given, setting)
    finally:
        ceilings.allow_tf32(False)
    if kind.arithmetic in peaks:
        bound_s = network.meta_batch_size * _flops(kind.algorithm, network, setting) / peaks[kind.arithmetic]
        step_ms = values["ms a step"]
        assert isinstance(step_ms, float)
        values |= {"bound ms": 1e3 * bound_s, "share of the bound": 1e3 * bound_s / step_ms}
    if kind.chunk == "by hand":
        values |= same_loss(experiment, given, setting)
    return values


def chunk_size_of(kind: Kind, network: Network) -> int:
    """Episodes a chunk."""
    parts = CHUNKS.get(kind.chunk, 0)
    return network.meta_batch_size // parts if parts else 1


def measured(kind: Kind, experiment: Experiment, given: list[Arrival], setting: Setting) -> Values:
    """Time, speed, memory and kernels."""
    steps = plain_steps if kind.chunk == "by hand" else platform_steps
    gc.collect()
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)
    taken = timed(steps(experiment, cycle(given), setting.device), setting)
    median_s = statistics.median(taken)
    return {
        "ms a step": 1e3 * median_s,
        "episodes/s": experiment.meta_batch_size / median_s,
        "peak GiB": torch.cuda.max_memory_allocated(setting.device) / 2**30 if setting.on_gpu else None,
        "timings": len(taken),
    }


def timed(steps: Iterator[float], setting: Setting) -> list[float]:
    """Seconds of steps, of which some have been done before: at least two, more while there is time.

    Raises:
        Wrong: if a loss is no number, since the time of such a step says nothing.
    """
    taken: list[float] = []
    began = time.perf_counter()
    for number in range(2 + MOST_TIMINGS):
        setting.synchronize()
        started = time.perf_counter()
        loss = next(steps)
        setting.synchronize()
        ended = time.perf_counter()
        if not math.isfinite(loss):
            raise Wrong(f"the loss is {loss}", {})
        if number >= 2 or (number == 1 and started - began > SLOW_S):
            taken.append(ended - started)
        if len(taken) >= 2 and ended - began > (MEASURED_S / 10 if setting.small else MEASURED_S):
            break
    return taken


def same_loss(experiment: Experiment, given: list[Arrival], setting: Setting) -> Values:
    """How far the first loss by hand is from metaray's.

    Raises:
        Wrong: if it is another one.
    """
    ours, by_hand = (next(steps(experiment, iter(given), setting.device)) for steps in (platform_steps, plain_steps))
    difference = abs(ours - by_hand) / abs(ours)
    if not difference <= SAME_LOSS:
        raise Wrong(f"metaray's first loss is {ours:.6g}, that by hand {by_hand:.6g}", {"loss off by": difference})
    return {"loss off by": difference}


@lru_cache
def given_to(network: Network, setting: Setting) -> list[Arrival]:
    """Two meta-batches, the same for all that is timed of a network."""
    return arrivals(experiment_of(setting, network, ALGORITHMS["ProtoNet"]), 2)


@lru_cache
def _flops(algorithm: str, network: Network, setting: Setting) -> int:
    experiment = experiment_of(setting, network, ALGORITHMS[algorithm])
    return ceilings.flops_of_an_episode(experiment, setting, given_to(network, setting)[0].batch)


SECTION = Section("costs", ABOUT, cases)
