"""Everything about an experiment that can be checked before anything expensive starts."""

import torch

from metaray.algorithms.context import Context
from metaray.data.draws import Split
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.training.experiment import Experiment
from metaray.training.outer_loop import TrainState, chunk_size_of, initial_state


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
    state = initial_state(experiment, torch.device("cpu"))
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
        wanted = f"[2, {expected}] (one output for each of {expected} ways)" if expected else "[2, embedding]"
        raise InputError(
            f"the model maps a batch of 2 inputs to shape {list(output.shape)}, but {experiment.algorithm.kind} "
            f"needs {wanted}"
        )
    _check_adaptation(experiment, state, context)


def _check_adaptation(experiment: Experiment, state: TrainState, context: Context) -> None:
    """Adapt once to blank examples: algorithms check there what depends on the network, such as parameter patterns."""
    blank = torch.zeros(context.ways, *experiment.source.feature_shape)
    with torch.no_grad():
        experiment.algorithm.adapt(state.meta, Examples(blank, torch.arange(context.ways)), context)
