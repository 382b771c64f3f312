"""Everything about an experiment that can be checked before anything expensive starts."""

import dataclasses

import torch

from metaray.algorithms.context import Context
from metaray.data.draws import Split
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.errors import InputError
from metaray.models.model import seeded
from metaray.training.double_backward import (
    Fault,
    find_fault,
    first_order_kinds,
    goes_through_custom_functions,
    operation_of,
)
from metaray.training.experiment import Experiment
from metaray.training.outer_loop import TrainState, chunk_size_of, context_of, initial_state

CPU = torch.device("cpu")


def preflight(experiment: Experiment) -> None:
    """Check the source against all specs, the model's output against the ways, and that the algorithm adapts.

    Raises:
        InputError: with the numbers, for the first thing that is wrong.
    """
    torch.set_num_threads(experiment.threads_per_worker)
    specs: dict[Split, EpisodeSpec] = {
        "meta-train": experiment.episodes,
        "meta-val": experiment.eval_spec,
        "meta-test": experiment.eval_spec,
    }
    for split, spec in specs.items():
        experiment.source.check(split, ways=spec.ways, shots=spec.shots, queries=spec.queries)
    _check_outputs(experiment)


def check_shares(experiment: Experiment, workers: int, device: torch.device) -> None:
    """Check that each worker gets something to do.

    Args:
        experiment: to run.
        workers: the most that may take part.
        device: of each.

    Raises:
        InputError: with the numbers, if there are more workers than chunks.
    """
    size, chunk_size = experiment.meta_batch_size, chunk_size_of(experiment, device)
    count = -(-size // chunk_size)
    if workers > count:
        episodes = "1 episode" if chunk_size == 1 else f"{chunk_size} episodes"
        remedy = "raise meta_batch_size" if chunk_size == 1 else "set a smaller chunk_size"
        raise InputError(
            f"{workers} workers for a meta-batch of {size} in {count} chunks of {episodes}: each worker needs at least "
            f"one chunk a step; lower --workers or {remedy}"
        )


def _check_outputs(experiment: Experiment) -> None:
    state = initial_state(experiment, CPU)
    if not state.meta:
        raise InputError(
            f"algorithm {experiment.algorithm.kind!r} has nothing to train; "
            "it serves as a baseline that every run reports"
        )
    expected = experiment.algorithm.outputs(experiment.problem)
    context = Context(network=state.network, ways=experiment.episodes.ways)
    x = torch.zeros(2, *experiment.source.feature_shape)
    try:
        with torch.no_grad():
            output = context.forward(dict(state.network.named_parameters()), x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the model cannot take a batch of shape {tuple(x.shape)} from this source: {error}"
        ) from error
    if output.ndim != 2 or len(output) != 2 or (expected is not None and output.shape[1] != expected):
        classes = experiment.source.target_size is None
        each = f"each of {expected} ways" if classes else "each value of a target"
        wanted = f"[2, {expected}] (one output for {each})" if expected else "[2, embedding]"
        raise InputError(
            f"the model maps a batch of 2 inputs to shape {list(output.shape)}, but {experiment.algorithm.kind} "
            f"needs {wanted}"
        )
    with seeded(0):
        _check_meta_gradient(experiment, state)
        _check_judging(experiment, state)


def _check_meta_gradient(experiment: Experiment, state: TrainState) -> None:
    """Compute the meta-gradient of one task, as training will; its value is for training to judge."""
    algorithm, chunk_size = experiment.algorithm, chunk_size_of(experiment, CPU)
    # At the last step: the order of a gradient may rise in the course of training.
    context = context_of(experiment, state.network, training=True, step=max(0, experiment.num_steps - 1))
    context = dataclasses.replace(context, precision="float32", batched=chunk_size > 1)
    chunk, single = (_first_task(experiment, "meta-train", size) for size in (chunk_size, 1))
    if algorithm.differentiates_twice and goes_through_custom_functions(context, single.support.x):
        fault = find_fault(context.with_batched(False), single.support.x)
        if fault is not None and fault.operation is not None:
            raise InputError(_lacking(experiment, fault.operation, fault))
    try:
        algorithm.meta_gradient(state.meta, chunk, context)
    except RuntimeError as error:
        told = _explained(experiment, state, single, context, error)
        if told is None:
            raise
        raise InputError(told) from error


def _first_task(experiment: Experiment, split: Split, chunk_size: int) -> TensorEpisode:
    """Episode 0, alone in a chunk."""
    spec = experiment.episodes if split == "meta-train" else experiment.eval_spec
    seed = experiment.seed if split == "meta-train" else experiment.evaluation.seed
    batch = sample_meta_batch(experiment.source, spec, split, seed, range(1))
    return next(chunks(batch, chunk_size, CPU, experiment.source, split))


def _explained(
    experiment: Experiment, state: TrainState, single: TensorEpisode, context: Context, error: RuntimeError
) -> str | None:
    """What an error of the meta-gradient means to the user; None if it is not about derivatives or mapping."""
    fault = find_fault(context, single.support.x)
    if context.batched:
        plain = context.with_batched(False)
        try:
            experiment.algorithm.meta_gradient(state.meta, single, plain)
        except RuntimeError as also:
            return _explained(experiment, state, single, plain, also)
        where = "" if fault is None else f" {fault.call.where}"
        return (
            f"episodes of this experiment cannot be mapped over in chunks of {chunk_size_of(experiment, CPU)}, because "
            f"torch.vmap fails{where}: {_first_line(error)}; set chunk_size=1"
        )
    twice = experiment.algorithm.differentiates_twice
    if fault is not None and fault.operation is not None and (twice or fault.order == 1):
        return _lacking(experiment, fault.operation, fault)
    operation = operation_of(error)
    return None if operation is None else _lacking(experiment, operation, None)


def _lacking(experiment: Experiment, operation: str, fault: Fault | None) -> str:
    """That a derivative is missing; without a fault, somewhere outside of the network's modules."""
    where = "" if fault is None else f" {fault.call.where}"
    if not experiment.algorithm.differentiates_twice or (fault is not None and fault.order == 1):
        return f"the derivative of {operation!r}{where} is not implemented, which {experiment.algorithm.kind} needs"
    return (
        f"the second derivative of {operation!r}{where} is not implemented, which {experiment.algorithm.kind} needs; "
        f"first-order algorithms would work: algorithm.kind={', '.join(first_order_kinds(experiment))}"
    )


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]


def _check_judging(experiment: Experiment, state: TrainState) -> None:
    """Adapt to one task of meta-val by a single inner step: what depends on evaluation's own numbers shows there."""
    context = dataclasses.replace(context_of(experiment, state.network, training=False), precision="float32")
    if experiment.algorithm.gradient_steps and context.inner_steps != 0:
        context = dataclasses.replace(context, inner_steps=1)
    meta = {name: tensor.detach() for name, tensor in state.meta.items()}
    with torch.no_grad():
        experiment.algorithm.outcomes(meta, _first_task(experiment, "meta-val", 1), context)
