"""How many trials fit into a cluster at once: the arithmetic, before anything starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from metaray.errors import InputError
from metaray.training.placement import ClusterNode


@dataclass(frozen=True)
class Shares:
    """The resources that a search asks for; nothing here changes what a trial computes.

    Attributes:
        workers: Number of Ray Train workers of a trial; 0 trains each trial in one process, which samples its own
            episodes.
        samplers: Number of sampler actors of a trial with workers. They reserve no CPU.
        cpus: Number of CPUs that each worker, or the one process of a trial, reserves.
        gpus: Number of GPUs that each of them reserves; a fraction lets several share one GPU, and 0 uses none.
        concurrent: Number of trials that run at once; None for as many as fit.
    """

    workers: int = 0
    samplers: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None

    @property
    def processes(self) -> int:
        """Processes of a trial that reserve something."""
        return max(1, self.workers)


class Capacity(NamedTuple):
    """The number of trials that fit on the cluster at once.

    Attributes:
        at_once: Number of trials.
        text: The calculation in words.
    """

    at_once: int
    text: str


def capacity_of(shares: Shares, nodes: Sequence[ClusterNode], trials: int) -> Capacity:
    """Calculate how many trials fit on the nodes of a cluster at once.

    Raises:
        InputError: If no trial fits, or fewer than were asked for; the message names the flag that helps.
    """
    slots = sum(_slots(shares, node) for node in nodes)
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    have = f"the cluster has {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if shares.gpus else "")
    each = f"{shares.cpus:g} CPUs" + (f" and {shares.gpus:g} GPUs" if shares.gpus else "")
    one = f"{shares.workers} workers x {each}" if shares.workers else each
    fit = slots // shares.processes
    if fit < 1:
        flags = "--cpus-per-worker" + (", --gpus-per-trial or --device cpu" if shares.gpus else "")
        lower = f"--workers-per-trial or {flags}" if shares.workers else flags
        raise InputError(f"a trial takes {one}, but {have}, which is too little for one; lower {lower}")
    wanted = shares.concurrent
    if wanted is not None and wanted > fit:
        raise InputError(
            f"{wanted} trials at once x {one} = {_total(shares, wanted)}, but {have}: {fit} fit; "
            f"lower --concurrent to {fit}" + (", or --workers-per-trial" if shares.workers else "")
        )
    if shares.workers > 1 and wanted is None and fit == 1 < trials:
        raise InputError(
            f"{trials} trials x {one} = {_total(shares, trials)}, but {have}: only one fits at a time; lower "
            "--workers-per-trial, or say --concurrent 1 to train one after the other"
        )
    at_once = min(trials, fit, wanted or fit)
    samplers = f", {shares.samplers} samplers each" if shares.workers else ""
    rounds = math.ceil(trials / at_once)
    turns = "1 round" if rounds == 1 else f"{rounds} rounds"
    return Capacity(at_once, f"{trials} trials of {one}{samplers}; {have}: {at_once} at once, in at most {turns}")


def _slots(shares: Shares, node: ClusterNode) -> int:
    """Processes that fit on a node. A hair more than it has is no more: 10 x 0.1 is not 1."""
    fit = [math.floor(node.cpus / shares.cpus + 1e-9)]
    if shares.gpus >= 1:
        fit.append(math.floor(node.gpus / shares.gpus + 1e-9))
    elif shares.gpus:
        fit.append(math.floor(node.gpus) * math.floor(1 / shares.gpus + 1e-9))  # a fraction is of one GPU
    return min(fit)


def _total(shares: Shares, trials: int) -> str:
    count = trials * shares.processes
    return f"{count * shares.cpus:g} CPUs" + (f" and {count * shares.gpus:g} GPUs" if shares.gpus else "")
