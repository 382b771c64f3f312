"""Whether episodes that are mapped over together have the meta-gradient that they have one by one."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.config import replace
from metaray.data.draws import Split
from metaray.data.task import Side
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.inputs import mapped, take, to_dtype
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import Examples, TensorEpisode, chunks
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models.model import trainable
from metaray.records.train_state import TrainState
from metaray.training.checks.double_backward import find_difference, relative_difference
from metaray.training.outer_loop import context_of

CPU = torch.device("cpu")
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Relative. A network that insists on float32 is compared in that, whose rounding inner steps make larger."""
NUDGE, MARGIN = 1e-9, 10.0
LARGEST = 2**23
"""Numbers that the inner steps of one episode may keep for their derivatives."""
TRIED = 32
"""Episodes among which two neighbours of equal shape are looked for."""
SPLITS: tuple[Split, Split] = ("meta-train", "meta-val")


class Pair(NamedTuple):
    """Two episodes, and the same as one chunk."""

    one: TensorEpisode
    other: TensorEpisode
    chunk: TensorEpisode

    def to(self, dtype: torch.dtype) -> Self:
        """The same with inputs of another type."""
        return type(self)(*(_as(dtype, episode) for episode in self))

    def turned(self) -> TensorEpisode:
        """The chunk with its episodes the other way round."""
        return TensorEpisode(*(_turned(part) for part in self.chunk))


class Comparison(NamedTuple):
    """What is computed once and again: of two episodes one by one, and as a chunk."""

    alone: Tensors
    together: Tensors

    @property
    def difference(self) -> float:
        """Relative."""
        return relative_difference(self.together, self.alone)


def check_mapping(experiment: Experiment, state: TrainState) -> None:
    """Compare the meta-gradient of two small episodes in a chunk with the sum of theirs one by one, in float64.

    The inner steps are those of the experiment, as is what is random in training. The network of `state` is converted.

    Raises:
        InputError: If they differ, naming the module whose derivatives do.
    """
    spec = _small(experiment)
    size = _size_of(experiment, state.network)
    algorithm = _with_steps(experiment.algorithm, size.inner_steps)
    context = context_of(experiment, state.network, training=True, step=max(0, experiment.num_steps - 1))
    context = dataclasses.replace(
        context,
        ways=experiment.source.task.labels(spec.most_ways),
        precision="float32",
        channels_last=False,
        randomness="same",
    )
    training, judging = (_pair(experiment, split, spec, size.rows) for split in SPLITS)
    for dtype in TOLERANCES:
        state.network.to(dtype)
        try:
            _check_training(dtype, algorithm, state.meta, training, context)
            _check_judging(dtype, algorithm, state.meta, judging, context)
            return
        except RuntimeError:
            if dtype == torch.float32:
                raise


def small_trial(experiment: Experiment, network: nn.Module) -> tuple[Pair, Algorithm]:
    """Two small episodes of meta-train, and the algorithm with as many inner steps as memory allows for."""
    size = _size_of(experiment, network)
    pair = _pair(experiment, "meta-train", _small(experiment), size.rows)
    return pair, _with_steps(experiment.algorithm, size.inner_steps)


def _check_training(dtype: torch.dtype, algorithm: Algorithm, meta: Tensors, pair: Pair, context: Context) -> None:
    pair, meta = pair.to(dtype), leaves(meta, dtype)
    found = _compared(algorithm, meta, pair, context)
    tolerance = TOLERANCES[dtype]
    # What is not finite is left to training, which says in which episode.
    if found.difference <= tolerance or not all(t.isfinite().all() for t in found.alone.values()):
        return
    order = 2 if algorithm.differentiates_twice else 1
    call = find_difference(context, pair.one.support.x, pair.other.support.x, order=order, tolerance=tolerance)
    if call is None and _is_chaotic(algorithm, meta, pair, context, found):
        return
    where = f" {call.where}" if call else ""
    raise InputError(
        "episodes that are mapped over in chunks have another meta-gradient than one by one (a relative difference of "
        f"{found.difference:.1e}): under torch.vmap a derivative{where} is wrong; set chunk_size=1"
    )


def _check_judging(dtype: torch.dtype, algorithm: Algorithm, meta: Tensors, pair: Pair, context: Context) -> None:
    judging = dataclasses.replace(context, training=False, inner_steps=1 if algorithm.gradient_steps else None)
    pair = pair.to(dtype)
    meta = {name: tensor.detach() for name, tensor in leaves(meta, dtype).items()}

    def losses(episode: TensorEpisode, batched: bool) -> Tensor:
        with torch.no_grad(), _DrawnAlike():
            torch.manual_seed(0)
            return algorithm.outcomes(meta, episode, judging.with_batched(batched)).loss

    alone = torch.cat([losses(pair.one, False), losses(pair.other, False)])
    difference = relative_difference({"": losses(pair.chunk, True)}, {"": alone})
    if difference > TOLERANCES[dtype] and alone.isfinite().all():
        raise InputError(
            "episodes that are mapped over in chunks are judged otherwise than one by one (a relative difference of "
            f"{difference:.1e} in the loss): the network does something else under torch.vmap; set chunk_size=1"
        )


def _compared(algorithm: Algorithm, meta: Tensors, pair: Pair, context: Context) -> Comparison:
    def gradient(episode: TensorEpisode, batched: bool) -> Tensors:
        with _DrawnAlike():
            torch.manual_seed(0)
            return algorithm.meta_gradient(meta, episode, context.with_batched(batched)).gradient

    one, other = gradient(pair.one, False), gradient(pair.other, False)
    return Comparison({name: one[name] + other[name] for name in meta}, gradient(pair.chunk, True))


def _is_chaotic(algorithm: Algorithm, meta: Tensors, pair: Pair, context: Context, found: Comparison) -> bool:
    """Whether the difference is one that rounding makes: inner steps may blow it up as much."""
    generator = torch.Generator().manual_seed(0)
    nudged = {
        name: (t.detach() * (1 + NUDGE * torch.randn(t.shape, generator=generator, dtype=t.dtype))).requires_grad_()
        for name, t in meta.items()
    }
    moved = _compared(algorithm, nudged, pair, context).alone
    return not found.difference > MARGIN * relative_difference(moved, found.alone)


class _DrawnAlike(TorchFunctionMode):
    """Within the block, what torch cannot draw alike for all that is mapped over is drawn by other means."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1 and not kwargs:
            chance: Tensor = args[0]
            return (torch.rand(chance.shape, dtype=chance.dtype, device=chance.device) < chance).to(chance.dtype)
        return func(*args, **(kwargs or {}))


def _small(experiment: Experiment) -> EpisodeSpec:
    """Episodes as small as the algorithm can learn from: derivatives do not depend on how many examples there are."""
    spec = experiment.episodes
    ways, shots, queries = spec.largest
    most_shots, most_queries = (2, 2) if experiment.source.task.labels_vary else (6, 4)
    if not experiment.algorithm.fixed_ways:
        ways = min(ways, 3)
    return EpisodeSpec(ways=ways, shots=min(shots, most_shots), queries=min(queries or most_queries, most_queries))


class _Size(NamedTuple):
    """How much is computed.

    Attributes:
        rows: Examples of a support or query set, at most; None takes all.
        inner_steps: Number of inner steps at most.
    """

    rows: int | None
    inner_steps: int


def _size_of(experiment: Experiment, network: nn.Module) -> _Size:
    """What memory allows for: large networks see fewer examples, and then take fewer inner steps, but at least two."""
    algorithm = experiment.algorithm
    steps = getattr(algorithm, "inner_steps", 1)
    if not algorithm.gradient_steps or not algorithm.fixed_ways:
        return _Size(None, steps)
    numbers = _numbers_kept(experiment, network)
    rows = max(4, LARGEST // (numbers * max(1, steps)))
    return _Size(rows, min(steps, max(2, LARGEST // (numbers * rows))))


def _numbers_kept(experiment: Experiment, network: nn.Module) -> int:
    """Estimate how many numbers a forward pass keeps of one example: what its innermost modules return."""
    found = [1]

    def count(_module: Any, _inputs: Any, output: Any) -> None:
        found.append(output.numel() // 2 if isinstance(output, Tensor) else 0)

    hooks = [module.register_forward_hook(count) for module in network.modules() if not list(module.children())]
    try:
        with torch.no_grad():
            context = Context(network=network, ways=1)
            context.forward(dict(trainable(network)), experiment.task_shape.probe(2))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(found)


def _with_steps(algorithm: Algorithm, inner_steps: int) -> Algorithm:
    if getattr(algorithm, "inner_steps", inner_steps) == inner_steps:
        return algorithm
    try:
        return replace(algorithm, inner_steps=inner_steps)
    except InputError:  # its other fields do not go with fewer
        return algorithm


def _pair(experiment: Experiment, split: Split, spec: EpisodeSpec, rows: int | None) -> Pair:
    seed = experiment.seed if split == "meta-train" else experiment.evaluation.seed
    for first in range(0, TRIED, 2):
        batch = sample_meta_batch(experiment.source, spec, split, seed, range(first, first + 2))
        found = next(chunks(batch, 2, CPU, experiment.source, split))
        if len(found) == 1:
            break
    else:  # ragged inputs that are hardly ever padded to one length
        batch = sample_meta_batch(experiment.source, spec, split, seed, [0])
        found = next(chunks(batch, 2, CPU, experiment.source, split))
        found = (TensorEpisode(*(_twice(part) for part in found[0])),)
    chunk = _cut(found[0], rows)
    one, other = (TensorEpisode(*(_at(part, i) for part in chunk)) for i in range(2))
    return Pair(one, other, chunk)


def _twice(part: Any) -> Any:
    """A chunk of one episode with the same one once more."""
    if isinstance(part, Side):
        return Side(mapped(lambda x: torch.cat([x, x]), part.x), torch.cat([part.y, part.y]))
    return torch.cat([part, part])


def _turned(part: Any) -> Any:
    if isinstance(part, Side):
        return Side(mapped(lambda x: x.flip(0), part.x), part.y.flip(0))
    return part.flip(0)


def _cut(chunk: TensorEpisode, rows: int | None) -> TensorEpisode:
    """The same with so many examples a side at most, of all classes evenly."""

    def cut(side: Examples) -> Examples:
        count = side.y.shape[1]
        at = torch.linspace(0, count - 1, min(rows or count, count)).long()
        return Examples(take(side.x, (slice(None), at)), side.y[:, at])

    return chunk._replace(support=cut(chunk.support), query=cut(chunk.query))


def _at(part: Any, i: int) -> Any:
    """The part that belongs to one episode of a chunk."""
    return Side(take(part.x, i), part.y[i]) if isinstance(part, Side) else part[i]


def _as(dtype: torch.dtype, episode: TensorEpisode) -> TensorEpisode:
    sides = [Examples(to_dtype(side.x, dtype), side.y) for side in (episode.support, episode.query)]
    return episode._replace(support=sides[0], query=sides[1])


def leaves(meta: Tensors, dtype: torch.dtype) -> Tensors:
    """Copies of a type, which require gradients."""
    return {name: tensor.detach().to(dtype, copy=True).requires_grad_() for name, tensor in meta.items()}
