"""What the ranks of a run must agree on before the first step."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.models.state import Marks, unlike
from metaray.training.reduction import Reducer


def gathered(value: int, reducer: Reducer, device: torch.device) -> list[int]:
    """An integer below 2**53 of each rank, on all."""
    table = torch.zeros(reducer.world_size, dtype=torch.float64, device=device)
    table[reducer.rank] = value
    return [int(found) for found in reducer.sum_(table).tolist()]


def require_start(experiment: Experiment, step: int) -> None:
    """Refuse to start afresh what is to start from another run.

    Args:
        experiment: Experiment of the run.
        step: Step of the checkpoint that the run goes on from; 0 where there is none.

    Raises:
        RunFailed: If that is before the run begins.
    """
    initial = experiment.initial
    if initial is not None and step < initial.step:
        more = experiment.num_steps - initial.step
        raise RunFailed(
            f"the run starts from step {initial.step} of run {initial.run!r}, but has no whole checkpoint of that step "
            f"or a later one; `metaray train RECIPE --run {initial.run} --extend {more}` brings it"
        )


def number_of(described: Mapping[str, Any]) -> int:
    """What stands for something in JSON types, below 2**48."""
    return int(hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12], 16)


def require_same_network(marks: Marks, before: Marks, gather: Callable[[int], list[int]], *, alike: bool) -> None:
    """Refuse a network that is built otherwise than when the run began, or than on another rank.

    Args:
        marks: Marks of the network's frozen parameters, buffers and other tensors on this rank.
        before: Marks in the checkpoint that the run goes on from; empty where there is none.
        gather: Gives an integer of each rank to all of them.
        alike: Whether the ranks have the same software and kind of processor, so that the same arithmetic gives the
            same bits.

    Raises:
        RunFailed: If the network is built otherwise anywhere; all ranks raise.
    """
    changed = unlike(before, marks) if before else []
    if any(gather(len(changed))):
        which = f"another {changed[0]!r}" if changed else "on another node other tensors"
        raise RunFailed(
            f"building the network gives {which} than when the run began: a file that is read there has changed, or "
            "its code. Bring that back, or start another run"
        )
    if len(set(gather(number_of(marks)))) > 1 and alike:
        raise RunFailed(
            "the workers build networks with different frozen parameters or buffers: what is read there must be the "
            "same on all nodes, and what is random must come from torch's generator"
        )


def require_same_execution(described: Mapping[str, Any], gather: Callable[[int], list[int]]) -> None:
    """Refuse to sum gradients that were computed in different ways.

    Args:
        described: How this rank computes, in JSON types by what to call it: the kind of execution, its kernels or
            graphs, what compiles them, and for what.
        gather: Gives an integer of each rank to all of them.

    Raises:
        RunFailed: If the ranks would compute in different ways; all of them raise.
    """
    if len(set(gather(number_of(described)))) == 1:
        return
    unlike_mine = [name for name in sorted(described) if len(set(gather(number_of({name: described[name]})))) > 1]
    if unlike_mine:
        raise RunFailed(
            f"the workers would compute meta-gradients in different ways: they differ in {', '.join(unlike_mine)}. "
            "Give them the same software and kind of processor; with execution=batched, for which nothing is compiled, "
            "the same version of metaray is enough"
        )
