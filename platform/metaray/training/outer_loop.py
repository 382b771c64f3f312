"""THE outer loop: a generator of steps. Logging, evaluating, saving and stopping belong to whoever iterates."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.episodes.prefetch import Arrival
from metaray.episodes.tensors import chunks
from metaray.errors import RunFailed
from metaray.models.model import build_seeded
from metaray.training.experiment import Experiment
from metaray.training.optimizer import clip_, global_norm
from metaray.training.reduction import Reducer, flatten, unflatten


@dataclass
class TrainState:
    """Everything that the next step depends on, besides the experiment.

    Attributes:
        network: the architecture; its own weights are never used.
        meta: the meta-parameters, leaves that require gradient, updated in place.
        optimizer: over `meta`'s tensors; None where there is nothing to train.
        step: the next step.
    """

    network: nn.Module
    meta: Tensors
    optimizer: torch.optim.Optimizer | None
    step: int = 0


class Step(NamedTuple):
    """What one outer step did.

    Attributes:
        step: its number.
        loss: mean query loss over the meta-batch.
        score: mean query accuracy over the meta-batch.
        outer_lr: learning rate used.
        gradient_norm: of the outer gradient, before clipping.
        wait_s: time this rank stood waiting for episodes.
        duration_s: of the whole step, waiting included.
        stop: some rank was asked to stop; all ranks see it at the same step.
    """

    step: int
    loss: float
    score: float
    outer_lr: float
    gradient_norm: float
    wait_s: float
    duration_s: float
    stop: bool


def initial_state(experiment: Experiment, device: torch.device) -> TrainState:
    """The state before step 0: a pure function of the experiment."""
    outputs = experiment.algorithm.outputs(experiment.episodes.ways)
    network = build_seeded(experiment.model, experiment.source.feature_shape, outputs, seed=experiment.seed).to(device)
    meta = {name: tensor.requires_grad_() for name, tensor in experiment.algorithm.init(network).items()}
    optimizer = experiment.optimizer.build(list(meta.values())) if meta else None
    return TrainState(network, meta, optimizer)


def context_of(experiment: Experiment, network: nn.Module, *, training: bool, step: int = 0) -> Context:
    """The context in which `experiment` trains or is judged."""
    return Context(
        network=network,
        ways=experiment.episodes.ways if training else experiment.eval_spec.ways,
        step=step,
        training=training,
        inner_steps=None if training else experiment.evaluation.inner_steps,
        precision=experiment.precision.dtype,
        channels_last=experiment.precision.channels_last,
    )


def chunk_size_of(experiment: Experiment, device: torch.device) -> int:
    """Episodes mapped over at once on `device`."""
    if experiment.chunk_size is not None:
        return experiment.chunk_size
    return 1 if device.type == "cpu" else experiment.meta_batch_size


def outer_loop(
    experiment: Experiment,
    state: TrainState,
    stream: Iterable[Arrival],
    reducer: Reducer,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Step the meta-parameters once for each arrival of `stream`, and yield what happened.

    Args:
        experiment: what to train.
        state: updated in place; when a step is yielded, `state.step` is the one after it.
        stream: this rank's share of each meta-batch, from `state.step` on.
        reducer: sums over ranks. Clipping and the NaN decision come after it, so all ranks decide alike.
        device: where to compute.
        should_stop: whether this rank has been asked to stop; the flag rides with the gradient.

    Raises:
        RunFailed: if the loss or the gradient is not finite; the meta-parameters are then those of the step before.
    """
    size = experiment.meta_batch_size
    chunk_size = chunk_size_of(experiment, device)
    started = time.perf_counter()
    for arrival in stream:
        context = context_of(experiment, state.network, training=True, step=arrival.step)
        context = context.with_batched(chunk_size > 1)
        gradient: Tensors = {name: torch.zeros_like(tensor) for name, tensor in state.meta.items()}
        outcomes = torch.zeros(2, size, device=device)
        stop = torch.tensor([float(should_stop())], device=device)
        slot = int(arrival.batch.index[0]) - arrival.step * size
        first = slot
        for chunk in chunks(arrival.batch, chunk_size, device, experiment.source.preprocessing):
            # Modules such as dropout draw from the global generator: make it a function of the episode, not of history.
            torch.manual_seed(int(arrival.batch.seed[slot - first]))
            part = experiment.algorithm.meta_gradient(state.meta, chunk, context)
            for name, summand in part.gradient.items():
                gradient[name] += summand
            after = slot + len(part.outcome.loss)
            outcomes[0, slot:after], outcomes[1, slot:after] = part.outcome
            slot = after
        gradient, (outcomes, stop) = unflatten(
            reducer.sum_(flatten(gradient, outcomes, stop)), gradient, outcomes, stop
        )
        for summand in gradient.values():
            summand /= size
        losses, scores = outcomes.cpu()
        norm = global_norm(gradient)
        _require_finite(experiment, arrival.step, losses, norm)
        outer_lr = _update(experiment, state, gradient, norm)
        yield Step(
            step=arrival.step,
            loss=float(losses.mean()),
            score=float(scores.mean()),
            outer_lr=outer_lr,
            gradient_norm=norm,
            wait_s=arrival.wait_s,
            duration_s=time.perf_counter() - started,
            stop=bool(stop),
        )
        started = time.perf_counter()


def _require_finite(experiment: Experiment, step: int, losses: Tensor, norm: float) -> None:
    bad = [i for i, loss in enumerate(losses.tolist()) if not math.isfinite(loss)]
    if not bad and math.isfinite(norm):
        return
    first = step * experiment.meta_batch_size
    if bad:
        listed = ", ".join(f"episode {first + i} (loss {losses[i]:g})" for i in bad)
        what = f"the loss is not finite in {listed}"
    else:
        episodes = f"episodes {first} to {first + experiment.meta_batch_size - 1}"
        what = f"the outer gradient is not finite (norm {norm:g}) over {episodes}, mean loss {losses.mean():g}"
    raise RunFailed(f"stopped at step {step}: {what}. A smaller inner or outer learning rate often helps.")


def _update(experiment: Experiment, state: TrainState, gradient: Tensors, norm: float) -> float:
    """Clip, step the optimiser, count the step; returns the outer learning rate used."""
    recipe = experiment.optimizer
    if recipe.clip_norm is not None:
        clip_(gradient, norm, recipe.clip_norm)
    outer_lr = recipe.lr_at(state.step, experiment.num_steps)
    if state.optimizer is not None:
        for group in state.optimizer.param_groups:
            group["lr"] = outer_lr
        for name, tensor in state.meta.items():
            tensor.grad = gradient[name]
        state.optimizer.step()
        state.optimizer.zero_grad()
    state.step += 1
    return outer_lr
