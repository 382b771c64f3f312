"""Everything about an experiment that can be checked before anything expensive starts."""

import dataclasses

import torch

from metaray.algorithms.context import Context
from metaray.data.draws import Split
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.inputs import NOT_TAKEN, concatenate, not_taken, take
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.errors import InputError
from metaray.experiment.chunking import remedy_for, workers_at_most
from metaray.experiment.experiment import Experiment
from metaray.learners.encoder import weights_behind
from metaray.models.model import seeded, trainable
from metaray.models.state import undone
from metaray.records.train_state import TrainState
from metaray.training.checks.chunk_mapping import check_mapping
from metaray.training.checks.double_backward import (
    Fault,
    find_fault,
    first_order_kinds,
    goes_through_custom_functions,
    operation_of,
)
from metaray.training.checks.execution import check_recomputing, decide
from metaray.training.checks.first_loss import doubts_of
from metaray.training.checks.low_rank import check_low_rank
from metaray.training.checks.memory import Memory
from metaray.training.checks.stateless import check_single, check_stateless, left_by, require_unchanged
from metaray.training.checks.tied_names import check_tied_names
from metaray.training.checks.users_network import check_network, holds_users_code
from metaray.training.checks.users_optimizer import check_optimizer
from metaray.training.checks.users_preprocessing import check_preprocessing
from metaray.training.outer_loop import chunk_size_of, context_of, initial_state
from metaray.training.room import room_lacking
from metaray.users_code import users_code

CPU = torch.device("cpu")
EXAMPLES = 4
"""Examples of two tasks each that go through the network to see whether it keeps something."""


def preflight(experiment: Experiment, device: torch.device = CPU) -> tuple[str, ...]:
    """Check the source against all specs, the network by itself, and that the algorithm adapts as it will on `device`.

    Returns:
        What is allowed, but looks wrong, a sentence each.

    Raises:
        InputError: If something is wrong; for the first such thing, with the numbers.
    """
    experiment.require_faithful()
    what = f"experiment {experiment.name!r} was tried out, and raised an error"
    with users_code(what, surely=holds_users_code(experiment)):
        return _check(experiment, device)


def _check(experiment: Experiment, device: torch.device) -> tuple[str, ...]:
    torch.set_num_threads(experiment.threads_per_worker)
    specs: dict[Split, EpisodeSpec] = {
        "meta-train": experiment.episodes,
        "meta-val": experiment.eval_spec,
        "meta-test": experiment.eval_spec,
    }
    for split, spec in specs.items():
        experiment.source.check(split, spec)
    if experiment.augmentation is not None:
        experiment.augmentation.check(experiment.source.preprocessing)
    weights_behind(experiment.source.preprocessing)  # the learner, at the end, holds them
    state = initial_state(experiment, CPU, check_network(experiment))
    _check_outputs(experiment, state)
    check_optimizer(experiment, state.meta)
    with seeded(0):
        context = context_of(experiment, state.network, training=False)
        check_preprocessing(dataclasses.replace(context, precision="float32"), experiment.source.preprocessing)
        memory = Memory(experiment, state.network)
        memory.once("stateless", lambda: _check_stateless(experiment, state))
        before = left_by(state.network)
        doubts = _check_meta_gradient(experiment, state)
        _check_judging(experiment, state)
        require_unchanged(state.network, before, "an episode")
        _check_chunks(experiment, state, device, memory)
        check_recomputing(experiment, state)
        lacking = room_lacking(experiment, state, device)
    doubts = doubts if lacking is None else (*doubts, lacking)
    fallen_back = decide(experiment, device).why if device.type == "cpu" else ""
    return (*doubts, fallen_back) if fallen_back else doubts


def check_chunks(experiment: Experiment, device: torch.device) -> None:
    """The part of `preflight` that depends on the device, for where that is known only later.

    Raises:
        InputError: If the network cannot be mapped over, or gives something else then.
    """
    if chunk_size_of(experiment, device) > 1:
        state = initial_state(experiment, CPU)
        with seeded(0):
            _check_chunks(experiment, state, device, Memory(experiment, state.network))


def check_shares(experiment: Experiment, workers: int, device: torch.device) -> None:
    """Check that each worker gets something to do.

    Args:
        experiment: Experiment to run.
        workers: The most that may take part.
        device: Device of each worker.

    Raises:
        InputError: If there are more workers than chunks, with the numbers.
    """
    size, chunk_size = experiment.meta_batch_size, chunk_size_of(experiment, device)
    count = workers_at_most(experiment, chunk_size)
    if workers > count:
        episodes = "1 episode" if chunk_size == 1 else f"{chunk_size} episodes"
        cut = "1 chunk" if count == 1 else f"{count} chunks"
        raise InputError(
            f"{workers} workers for a meta-batch of {size} in {cut} of {episodes}: each worker needs at least "
            f"one chunk a step; lower --workers or {remedy_for(experiment, workers)}"
        )


def _check_outputs(experiment: Experiment, state: TrainState) -> None:
    if not state.meta:
        frozen = list(state.network.parameters()) and not trainable(state.network)
        why = "every parameter of the network is frozen" if frozen else "it serves as a baseline that every run reports"
        raise InputError(f"algorithm {experiment.algorithm.kind!r} has nothing to train; {why}")
    expected = experiment.algorithm.outputs(experiment.task_shape)
    context = Context(network=state.network, ways=1)
    x = experiment.task_shape.probe(2)
    try:
        with torch.no_grad(), undone(state.network):
            output = context.forward(dict(trainable(state.network)), x)
    except NOT_TAKEN as error:
        raise not_taken(x, error) from error
    check_low_rank(context, x)
    check_tied_names(experiment.algorithm, state.network)
    if output.ndim != 2 or len(output) != 2 or (expected is not None and output.shape[1] != expected):
        classes = experiment.source.task.has_classes
        each = f"each of {expected} ways" if classes else "each value of a target"
        wanted = f"[2, {expected}] (one output for {each})" if expected else "[2, embedding]"
        raise InputError(
            f"the model maps a batch of 2 inputs to shape {list(output.shape)}, but {experiment.algorithm.kind} "
            f"needs {wanted}"
        )


def _check_stateless(experiment: Experiment, state: TrainState) -> None:
    """Send a few examples of two tasks through the network, in training and when judged."""
    context = context_of(experiment, state.network, training=True)
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, range(2))
    one, other = (
        take(concatenate([task.support.x, task.query.x]), slice(EXAMPLES))
        for (task,) in chunks(batch, 1, CPU, experiment.source, "meta-train")
    )
    context = dataclasses.replace(context, precision="float32")
    check_stateless(context, one, other)
    if experiment.algorithm.batch_norm == "inductive":
        check_single(dataclasses.replace(context, training=False), one)


def _check_meta_gradient(experiment: Experiment, state: TrainState) -> tuple[str, ...]:
    """Compute the meta-gradient of one task, as training will; its value is for training to judge.

    Returns:
        What looks wrong with the loss.
    """
    algorithm, task = experiment.algorithm, _first_task(experiment, "meta-train", 1)
    context = _last(experiment, state).of(task)
    if algorithm.differentiates_twice and goes_through_custom_functions(context, task.support.x):
        fault = find_fault(context, task.support.x)
        if fault is not None and fault.operation is not None:
            raise InputError(_lacking(experiment, fault.operation, fault))
    try:
        loss = algorithm.meta_gradient(state.meta, task, context).outcome.loss
    except RuntimeError as error:
        told = _explained(experiment, context, task, error)
        if told is None:
            raise
        raise InputError(told) from error
    return doubts_of(experiment, float(loss.mean()), context.ways)


def _check_chunks(experiment: Experiment, state: TrainState, device: torch.device, memory: Memory) -> None:
    """Where episodes are mapped over in chunks, they must give what they give one by one."""
    chunk_size = chunk_size_of(experiment, device)
    if chunk_size == 1:
        return

    def check() -> None:
        # The processor here may lack what a GPU has for low precision.
        precision = experiment.precision.dtype if device.type == "cpu" else "float32"
        chunk = _first_task(experiment, "meta-train", chunk_size)
        context = dataclasses.replace(_last(experiment, state).of(chunk), precision=precision)
        try:
            experiment.algorithm.meta_gradient(state.meta, chunk, context)
        except RuntimeError as error:
            fault = find_fault(context, _first_task(experiment, "meta-train", 1).support.x)
            where = "" if fault is None else f" {fault.call.where}"
            raise InputError(
                f"episodes of this experiment cannot be mapped over in chunks of {chunk_size}, because torch.vmap fails"
                f"{where}: {_first_line(error)}; set chunk_size=1"
            ) from error
        check_mapping(experiment, state)

    memory.once("chunks", check)


def _last(experiment: Experiment, state: TrainState) -> Context:
    """The context of the last step: the order of a gradient may rise in the course of training."""
    context = context_of(experiment, state.network, training=True, step=max(0, experiment.num_steps - 1))
    return dataclasses.replace(context, precision="float32")


def _first_task(experiment: Experiment, split: Split, chunk_size: int) -> TensorEpisode:
    """Episode 0, alone in a chunk."""
    spec = experiment.episodes if split == "meta-train" else experiment.eval_spec
    seed = experiment.seed if split == "meta-train" else experiment.evaluation.seed
    batch = sample_meta_batch(experiment.source, spec, split, seed, range(1))
    (episode,) = next(chunks(batch, chunk_size, CPU, experiment.source, split))
    return episode


def _explained(experiment: Experiment, context: Context, task: TensorEpisode, error: RuntimeError) -> str | None:
    """What an error of the meta-gradient means to the user; None if it is not about derivatives."""
    fault = find_fault(context, task.support.x)
    twice = experiment.algorithm.differentiates_twice
    if fault is not None and fault.operation is not None and (twice or fault.order == 1):
        return _lacking(experiment, fault.operation, fault)
    operation = operation_of(error)
    return None if operation is None else _lacking(experiment, operation, None)


def _lacking(experiment: Experiment, operation: str, fault: Fault | None) -> str:
    """A sentence that a derivative is missing; without a fault, somewhere outside of the network's modules."""
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
        task = _first_task(experiment, "meta-val", 1)
        experiment.algorithm.outcomes(meta, task, context.of(task))
