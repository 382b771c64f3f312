"""THE outer loop: a generator of steps. Logging, evaluating, saving and stopping belong to whoever iterates."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.prefetch import Arrival
from metaray.episodes.tensors import chunks
from metaray.errors import Diverged
from metaray.experiment.chunking import chunk_size_on
from metaray.experiment.experiment import Experiment
from metaray.models.model import Fresh
from metaray.optimizers.stepping import build_optimizer, clip_, global_norm, update
from metaray.phases import each, phase
from metaray.records.train_state import TrainState
from metaray.training.execution.strategy import Strategy
from metaray.training.execution.table import Kind
from metaray.training.moving import moved
from metaray.training.reduction import Reducer, flatten, total, unflatten
from metaray.training.settling import Kept, Launch, Launches, Outcome, Settled, lag_on


class Step(NamedTuple):
    """The outcome of one outer step.

    Attributes:
        step: Number of the outer step.
        loss: Mean query loss over the meta-batch.
        score: Mean query score over the meta-batch, as the task kind defines it.
        outer_lr: Outer learning rate of the step.
        gradient_norm: Norm of the outer gradient, before clipping.
        wait_s: Seconds that this rank waited for episodes.
        duration_s: Seconds of the whole step, waiting included.
        stop: Whether some rank was asked to stop; all ranks see it at the same step.
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
    """The state before step 0, a pure function of the experiment.

    `fresh` is the experiment's network, if it is built already.
    """
    algorithm, model, problem = experiment.algorithm, experiment.model, experiment.task_shape
    network, initial = start(algorithm, model, problem, seed=experiment.seed, fresh=fresh)
    meta = {name: tensor.to(device).requires_grad_() for name, tensor in initial.items()}
    optimizer = build_optimizer(experiment.optimizer, meta) if meta else None
    return TrainState(network.to(device), meta, optimizer)


def context_of(experiment: Experiment, network: nn.Module, *, training: bool, step: int = 0) -> Context:
    """The context of training or evaluation for an experiment.

    Args:
        experiment: Experiment of the run.
        network: The network's architecture.
        training: Whether gradients flow back to the meta-parameters.
        step: Outer step in training; in evaluation the number of steps done, so that schedules keep their last value.
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
    return chunk_size_on(experiment, device.type)


def outer_loop(
    experiment: Experiment,
    state: TrainState,
    stream: Iterable[Arrival],
    reducer: Reducer,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    strategy: Strategy | None = None,
    *,
    lag: int | None = None,
    settles: Callable[[int], bool] = lambda done: False,
) -> Iterator[Step]:
    """Take one outer step for each arrival of `stream`, updating the meta-parameters, and yield its outcome.

    Args:
        experiment: The experiment to train.
        state: State of training, updated in place. When a step is yielded, `state.step` is the following step, or up to
            `lag` later.
        stream: This rank's share of each meta-batch, from `state.step` on.
        reducer: Reducer that sums over the ranks. Gradient clipping and the NaN decision come after it, so all ranks
            decide alike.
        device: Device to compute on.
        should_stop: Function that says whether this rank has been asked to stop; the flag is reduced together with the
            gradient.
        strategy: Strategy that computes meta-gradients; None computes them directly, batched if chunks are.
        lag: Number of steps that may be launched before the outcome of a step is waited for; None is 1 on a GPU, else
            0. Results do not depend on it.
        settles: Function that says whether the state will be looked at once a number of steps is done. At these steps,
            when a stop is passed on, and at the end, no further step is under way: `state.step` is the one after the
            yielded step.

    Raises:
        Diverged: If the loss or the gradient is not finite; the meta-parameters are then those before the step.
    """
    size, chunk_size = experiment.meta_batch_size, chunk_size_of(experiment, device)
    count, lag = -(-size // chunk_size), lag_on(device) if lag is None else lag
    strategy = strategy or _plain(experiment, device)
    launches, clock = Launches(experiment, state, lag, settles), _Clock(time.perf_counter())
    try:
        for arrival in each("waiting for episodes", stream):
            stop = torch.full((1,), float(should_stop()), device=device)
            leaves = _leaves(experiment, state, arrival, stop, chunk_size, device, strategy)
            root = total(leaves, _mine(arrival, size, chunk_size), count, reducer, experiment.reduction)
            with phase("optimiser"):
                launches.add(_stepped(experiment, state, arrival, root, stop, wait=lag == 0))
            yield from _told(launches.settled(), clock)
        yield from _told(launches.settled(all_of_them=True), clock)
    except Diverged:
        raise
    except Exception:
        launches.blame()
        raise


def _plain(experiment: Experiment, device: torch.device) -> Strategy:
    assert experiment.execution not in ("compiled", "graph"), "a strategy makes it so: metaray.training.readiness"
    kind: Kind = "each" if experiment.execution == "each" else "batched"
    return Strategy(kind, device, recomputes=experiment.recompute_inner_steps)


@dataclass
class _Clock:
    """When the present step began: what is done with one that was yielded is not part of it."""

    started_s: float


def _mine(arrival: Arrival, size: int, chunk_size: int) -> range:
    """The chunks of the meta-batch that have arrived."""
    first = (int(arrival.batch.index[0]) - arrival.step * size) // chunk_size
    return range(first, first - (-len(arrival.batch) // chunk_size))


def _stepped(
    experiment: Experiment, state: TrainState, arrival: Arrival, root: Tensor, stop: Tensor, *, wait: bool
) -> Launch:
    """Update the state by the sum over all chunks: once it is known that this may be, or on trust, with a copy kept."""
    size = experiment.meta_batch_size
    gradient, (outcomes, stop) = unflatten(root, state.meta, torch.empty(2, size, device="meta"), stop)
    for summand in gradient.values():
        summand /= size
    norm = global_norm(gradient)
    outcome = Outcome(arrival.step, outcomes, norm, stop)
    if not wait:
        kept = Kept(state)
        return Launch(outcome, kept, _update(experiment, state, gradient, norm), arrival.wait_s)
    settled = outcome.wait()
    settled.require_finite(experiment)
    return Launch(outcome, None, _update(experiment, state, gradient, settled.norm), arrival.wait_s)


def _told(steps: Iterable[tuple[Launch, Settled]], clock: _Clock) -> Iterator[Step]:
    for launch, settled in steps:
        yield Step(
            step=settled.step,
            loss=float(settled.losses.mean()),
            score=float(settled.scores.mean()),
            outer_lr=launch.outer_lr,
            gradient_norm=settled.norm,
            wait_s=launch.wait_s,
            duration_s=time.perf_counter() - clock.started_s,
            stop=settled.stop,
        )
        clock.started_s = time.perf_counter()


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
    at, compute = 0, strategy.of(experiment.algorithm, chunk_size)
    given = chunks(arrival.batch, chunk_size, device, experiment.source, "meta-train", experiment.augmentation)
    for chunk in each("moving to the device", moved(given, device)):
        gradient: Tensors = {}
        outcomes = torch.zeros(2, size, device=device)
        for some in chunk:
            # Modules such as dropout draw from the global generator: make it a function of the episode, not of history.
            torch.manual_seed(seeds[at])
            with phase("rest of the algorithm"):
                part = compute(state.meta, some, context.of(some))
            gradient = {name: gradient[name] + g if gradient else g for name, g in part.gradient.items()}
            here = slice(slots[at], slots[at] + len(part.outcome.loss))
            outcomes[0, here], outcomes[1, here] = part.outcome
            at += len(part.outcome.loss)
        with phase("reduction"):
            leaf = flatten({name: gradient[name] for name in state.meta}, outcomes, stop)
        yield leaf
        stop = torch.zeros_like(stop)


def _update(experiment: Experiment, state: TrainState, gradient: Tensors, norm: Tensor | float) -> float:
    """Clip, step the optimiser, count the step; returns the outer learning rate used."""
    recipe = experiment.optimizer
    if recipe.clip_norm is not None:
        clip_(gradient, norm, recipe.clip_norm)
    if state.optimizer is not None:
        update(recipe, state.optimizer, state.meta, gradient, step=state.step, num_steps=experiment.num_steps)
    outer_lr = recipe.lr_at(state.step, experiment.num_steps)
    state.step += 1
    return outer_lr
