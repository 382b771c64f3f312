"""THE outer loop: a generator of steps. Logging, evaluating, saving and stopping belong to whoever iterates."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.prefetch import Arrival
from metaray.episodes.tensors import chunks
from metaray.errors import Diverged
from metaray.experiment.experiment import Experiment
from metaray.models.model import Fresh
from metaray.optimizers.stepping import build_optimizer, clip_, global_norm, update
from metaray.phases import each, phase
from metaray.records.train_state import TrainState
from metaray.training.execution.strategy import Strategy
from metaray.training.reduction import Reducer, flatten, total, unflatten

CHUNKS_ON_GPU = 4


class Step(NamedTuple):
    """What one outer step did.

    Attributes:
        step: its number.
        loss: mean query loss over the meta-batch.
        score: mean query score over the meta-batch, as the kind of its tasks has it.
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


def initial_state(experiment: Experiment, device: torch.device, fresh: Fresh | None = None) -> TrainState:
    """The state before step 0: a pure function of the experiment; `fresh` is its network, if it is built already."""
    algorithm, model, problem = experiment.algorithm, experiment.model, experiment.task_shape
    network, initial = start(algorithm, model, problem, seed=experiment.seed, fresh=fresh)
    meta = {name: tensor.to(device).requires_grad_() for name, tensor in initial.items()}
    optimizer = build_optimizer(experiment.optimizer, meta) if meta else None
    return TrainState(network.to(device), meta, optimizer)


def context_of(experiment: Experiment, network: nn.Module, *, training: bool, step: int = 0) -> Context:
    """The context in which `experiment` trains or is judged.

    Args:
        experiment: of the run.
        network: the architecture.
        training: whether it trains.
        step: in training its number, else outer steps done by what is judged: schedules are where the last one was.
    """
    spec = experiment.episodes if training else experiment.eval_spec
    return Context(
        network=network,
        ways=experiment.source.task.labels(spec.most_ways),
        step=step if training else max(0, step - 1),
        training=training,
        inner_steps=None if training else experiment.evaluation.inner_steps,
        precision=experiment.precision.dtype,
        channels_last=experiment.precision.channels_last,
        task=experiment.source.task,
    )


def chunk_size_of(experiment: Experiment, device: torch.device) -> int:
    """Episodes mapped over at once on `device`; the outer gradient is summed over chunks of so many."""
    if experiment.chunk_size is not None:
        return min(experiment.chunk_size, experiment.meta_batch_size)
    return 1 if device.type == "cpu" else -(-experiment.meta_batch_size // CHUNKS_ON_GPU)


def outer_loop(
    experiment: Experiment,
    state: TrainState,
    stream: Iterable[Arrival],
    reducer: Reducer,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    strategy: Strategy | None = None,
) -> Iterator[Step]:
    """Step the meta-parameters once for each arrival of `stream`, and yield what happened.

    Args:
        experiment: what to train.
        state: updated in place; when a step is yielded, `state.step` is the one after it.
        stream: this rank's share of each meta-batch, from `state.step` on.
        reducer: joins the ranks. Clipping and the NaN decision come after it, so all ranks decide alike.
        device: where to compute.
        should_stop: whether this rank has been asked to stop; the flag rides with the gradient.
        strategy: how a chunk's meta-gradient is computed; None does so line by line, and batched where chunks are.

    Raises:
        Diverged: if the loss or the gradient is not finite; the meta-parameters are then those of the step before.
    """
    size = experiment.meta_batch_size
    chunk_size = chunk_size_of(experiment, device)
    count = -(-size // chunk_size)
    strategy = strategy or Strategy("batched", device, recomputes=experiment.recompute_inner_steps)
    started = time.perf_counter()
    for arrival in each("waiting for episodes", stream):
        stop = torch.tensor([float(should_stop())], device=device)
        leaves = _leaves(experiment, state, arrival, stop, chunk_size, device, strategy)
        first = (int(arrival.batch.index[0]) - arrival.step * size) // chunk_size
        mine = range(first, first - (-len(arrival.batch) // chunk_size))
        gradient, (outcomes, stop) = unflatten(
            total(leaves, mine, count, reducer, experiment.reduction),
            state.meta,
            torch.empty(2, size, device="meta"),
            stop,
        )
        with phase("optimiser"):
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


def _leaves(
    experiment: Experiment,
    state: TrainState,
    arrival: Arrival,
    stop: Tensor,
    chunk_size: int,
    device: torch.device,
    strategy: Strategy,
) -> Iterator[Tensor]:
    """One buffer a chunk: its gradient; losses and scores by their place in the meta-batch; once, the stop flag."""
    size = experiment.meta_batch_size
    context = context_of(experiment, state.network, training=True, step=arrival.step)
    slots, seeds = (arrival.batch.index - arrival.step * size).tolist(), arrival.batch.seed.tolist()
    at = 0
    given = chunks(arrival.batch, chunk_size, device, experiment.source, "meta-train", experiment.augmentation)
    for chunk in each("moving to the device", given):
        gradient: Tensors = {}
        outcomes = torch.zeros(2, size, device=device)
        for some in chunk:
            # Modules such as dropout draw from the global generator: make it a function of the episode, not of history.
            torch.manual_seed(seeds[at])
            with phase("rest of the algorithm"):
                part = strategy.meta_gradient(experiment.algorithm, state.meta, some, context.of(some))
            gradient = {name: gradient[name] + g if gradient else g for name, g in part.gradient.items()}
            here = slice(slots[at], slots[at] + len(part.outcome.loss))
            outcomes[0, here], outcomes[1, here] = part.outcome
            at += len(part.outcome.loss)
        with phase("reduction"):
            leaf = flatten({name: gradient[name] for name in state.meta}, outcomes, stop)
        yield leaf
        stop = torch.zeros_like(stop)


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
    raise Diverged(f"stopped at step {step}: {what}. A smaller inner or outer learning rate often helps.")


def _update(experiment: Experiment, state: TrainState, gradient: Tensors, norm: float) -> float:
    """Clip, step the optimiser, count the step; returns the outer learning rate used."""
    recipe = experiment.optimizer
    if recipe.clip_norm is not None:
        clip_(gradient, norm, recipe.clip_norm)
    if state.optimizer is not None:
        update(recipe, state.optimizer, state.meta, gradient, step=state.step, num_steps=experiment.num_steps)
    outer_lr = recipe.lr_at(state.step, experiment.num_steps)
    state.step += 1
    return outer_lr
