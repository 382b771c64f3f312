"""Whether an experiment can be computed as it asks for: decided before step 0, alike by all that take part."""

import dataclasses

import torch

from metaray.algorithms.algorithm import Algorithm, MetaGradient
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.tensors import TensorEpisode
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models.model import seeded
from metaray.records.execution import Executed
from metaray.records.train_state import TrainState
from metaray.training.arithmetic import first_shapes
from metaray.training.checks.chunk_mapping import leaves, small_trial
from metaray.training.checks.double_backward import relative_difference
from metaray.training.checks.memory import Memory
from metaray.training.execution.compiling import compiler_lacking
from metaray.training.execution.strategy import Strategy
from metaray.training.execution.table import Kind, automatic
from metaray.training.execution.turns import kinds_of_steps
from metaray.training.outer_loop import chunk_size_of, context_of, initial_state

CPU = torch.device("cpu")
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Relative. A network that insists on float32 is compared in that."""

OTHERWISE = (
    "recompute_inner_steps: inner steps that are computed again are others, as where a network hands something on past "
    "the inputs of its modules, in an attribute"
)


class _Unfit(Exception):
    """Why an experiment cannot be compiled, in words."""


def decide(experiment: Experiment, device: torch.device) -> Executed:
    """How meta-gradients are computed.

    What cannot be compiled falls back, as a whole, to what is plain, and what cannot be captured as a graph to what is
    compiled.

    Args:
        experiment: Experiment to train.
        device: Device to compute on.
    """
    asked = experiment.execution
    named = automatic(device.type, experiment.model.kind, experiment.algorithm.kind) if asked == "auto" else asked
    plain: Kind = "each" if named == "each" or chunk_size_of(experiment, device) == 1 else "batched"
    if named in ("each", "batched"):
        return Executed(kind=plain, device=device.type)
    lacking = compiler_lacking(device) or _unfit(experiment, device)
    if lacking is not None:
        return Executed(kind=plain, why=_told(experiment, plain, lacking), device=device.type)
    uncaptured = _uncaptured(experiment, device) if named == "graph" else None
    if uncaptured is not None:
        return Executed(kind="compiled", why=_told(experiment, "compiled", uncaptured), device=device.type)
    return Executed(kind=named, device=device.type)


def check_recomputing(experiment: Experiment, state: TrainState) -> None:
    """Refuse to keep less of inner steps where there are none that could be computed again, or would be others then.

    Raises:
        InputError: Naming the algorithm.
    """
    if not experiment.recompute_inner_steps:
        return
    strategy = Strategy("each", CPU, recomputes=True)
    with seeded(0):
        pair, algorithm = small_trial(experiment, state.network)
        context = _context(experiment, state)
        expected = _gradient(Strategy("each", CPU), algorithm, state.meta, pair.one, context).gradient
        try:
            found = _gradient(strategy, algorithm, state.meta, pair.one, context).gradient
        except RuntimeError as error:  # what the query pass has left may be of another shape
            raise InputError(f"{OTHERWISE} ({str(error).partition(chr(10))[0]}); leave it out") from error
    if strategy.runner.steps == 0:
        raise InputError(
            f"recompute_inner_steps: algorithm {experiment.algorithm.kind} takes no inner steps that could be computed "
            "again for its meta-gradient; leave it out"
        )
    difference = relative_difference(found, expected)
    if difference > TOLERANCES[torch.float32] and all(tensor.isfinite().all() for tensor in expected.values()):
        raise InputError(f"{OTHERWISE} (a relative difference of {difference:.1e}); leave it out")


def _told(experiment: Experiment, kind: Kind, why: str) -> str:
    return f"{experiment.algorithm.kind} on {experiment.model.kind}: computed {kind}, because {why}"


def _uncaptured(experiment: Experiment, device: torch.device) -> str | None:
    if device.type != "cuda":
        return "CUDA graphs need a GPU"
    if experiment.recompute_inner_steps:
        return "a graph cannot put random numbers back, as inner steps that are computed again do"
    state = initial_state(experiment, CPU)
    with seeded(0):
        pair, algorithm = small_trial(experiment, state.network)
        first: Tensors = {}
        # Also half-way: an algorithm may change what it computes without having said so.
        for step in sorted({*kinds_of_steps(experiment, 0, rates=True), experiment.num_steps // 2}):
            context = dataclasses.replace(_context(experiment, state), step=step)
            found = _gradient(Strategy("each", CPU), algorithm, state.meta, pair.one, context).gradient
            first = first or found
            if any(not torch.equal(found[name], first[name]) for name in first):
                return "what the algorithm computes changes from step to step"
    return None


def _unfit(experiment: Experiment, device: torch.device) -> str | None:
    """Why graphs of it are not to be had, or not right; None where they are."""
    if first_shapes(experiment) > 1:
        return "its episodes are of unequal shapes, for each of which it would have to be compiled, whenever one comes"
    state = initial_state(experiment, CPU)
    batched = chunk_size_of(experiment, device) > 1
    what = f"graphs-{'batched' if batched else 'each'}-{experiment.recompute_inner_steps}"
    try:
        with seeded(0):
            Memory(experiment, state.network).once(what, lambda: _compare(experiment, state, batched=batched))
    except _Unfit as reason:
        return str(reason)
    return None


def _compare(experiment: Experiment, state: TrainState, *, batched: bool) -> None:
    """The meta-gradient by graphs, uncompiled, against that line by line, of episodes that graphs were not made of."""
    pair, algorithm = small_trial(experiment, state.network)
    context = _context(experiment, state)
    for dtype, tolerance in TOLERANCES.items():
        state.network.to(dtype)
        meta, given = leaves(state.meta, dtype), pair.to(dtype)
        episodes = [given.chunk, given.turned()] if batched else [given.one, given.other]
        try:
            expected = [_gradient(Strategy("batched", CPU), algorithm, meta, one, context) for one in episodes]
        except RuntimeError:
            if dtype == torch.float32:
                raise _Unfit("its meta-gradient cannot be computed on the CPU, to compare with") from None
            continue
        strategy = Strategy("compiled", CPU, recomputes=experiment.recompute_inner_steps, backend="traced")
        counts = []
        for number in (0, 1, 0):
            found = _by_graphs(strategy, algorithm, meta, episodes[number], context)
            counts.append(len(strategy.runner.regions))
            _require_alike(found, expected[number].gradient, tolerance)
        _require_lasting(counts)
        return


def _by_graphs(
    strategy: Strategy, algorithm: Algorithm, meta: Tensors, chunk: TensorEpisode, context: Context
) -> Tensors:
    try:
        return _gradient(strategy, algorithm, meta, chunk, context).gradient
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise _Unfit(f"no graph of it can be made ({type(error).__name__}: {line})") from error


def _require_alike(found: Tensors, expected: Tensors, tolerance: float) -> None:
    difference = relative_difference(found, expected)
    # What is not finite is left to training, which says in which episode.
    if not difference <= tolerance and all(tensor.isfinite().all() for tensor in expected.values()):
        raise _Unfit(f"its meta-gradient by graphs would be another one (a relative difference of {difference:.1e})")


def _require_lasting(counts: list[int]) -> None:
    """Refuse what makes no graphs, or more of them when what was computed before is computed again."""
    if not counts[-1]:
        raise _Unfit("it has no inner step or forward pass of which a graph could be made")
    if counts[-1] > counts[-2]:
        raise _Unfit("it would need other graphs at each call")


def _gradient(
    strategy: Strategy, algorithm: Algorithm, meta: Tensors, chunk: TensorEpisode, context: Context
) -> MetaGradient:
    torch.manual_seed(0)
    return strategy.meta_gradient(algorithm, meta, chunk, context.of(chunk))


def _context(experiment: Experiment, state: TrainState) -> Context:
    context = context_of(experiment, state.network, training=True, step=max(0, experiment.num_steps - 1))
    return dataclasses.replace(context, precision="float32", channels_last=False)
