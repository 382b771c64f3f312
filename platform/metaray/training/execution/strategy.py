"""What a chunk's meta-gradient is computed by."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from metaray.algorithms.algorithm import Algorithm, MetaGradient, Outcome
from metaray.algorithms.context import Context, Tensors
from metaray.data.task import Side
from metaray.episodes.inputs import mapped
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.training.execution.compiling import Alive, Backend, Compiler
from metaray.training.execution.runner import Runner
from metaray.training.execution.table import Kind
from metaray.training.execution.tracing import Flat

Capture = Callable[[Flat, Sequence[Tensor], int], Flat]


class Strategy:
    """Computes meta-gradients of chunks, always of the same episodes in the same order.

    Args:
        kind: "each" episode of a chunk by itself, and summed in their order; "batched" under torch.vmap; "compiled"
            likewise, in compiled pieces; "graph" captured whole, pieces compiled.
        device: Device to compute on.
        recomputes: Whether inner steps keep only what they start from.
        unfolds: Whether convolutions of episodes that are mapped over are unfolded; None does so on a GPU.
        backend: Backend of compiled pieces.
        alive: Entered while pieces are compiled, for whoever watches over this rank.
        capture: Maker of graphs, for "graph": of a function of tensors, inputs like those that it will get, and how
            many of these, the first ones, stay where they are, it makes what replays the function. What that returns
            may be overwritten by the next call.
    """

    def __init__(
        self,
        kind: Kind,
        device: torch.device,
        *,
        recomputes: bool = False,
        unfolds: bool | None = None,
        backend: Backend = "inductor",
        alive: Alive = nullcontext,
        capture: Capture | None = None,
    ) -> None:
        assert kind != "graph" or capture is not None
        self.kind = kind
        self.compiler = Compiler(backend, alive) if kind in ("compiled", "graph") else None
        self.runner = Runner(self.compiler, recomputes=recomputes)
        self._is_plain = self.compiler is None and not recomputes
        self.unfolds = device.type == "cuda" if unfolds is None else unfolds
        self._capture, self._captured = capture, dict[object, Flat]()

    def of(self, algorithm: Algorithm, chunk_size: int) -> Callable[[Tensors, TensorEpisode, Context], MetaGradient]:
        """What computes meta-gradients of an algorithm: itself, where nothing is to be done besides."""
        if self._is_plain and not self.unfolds and (self.kind == "batched" or chunk_size == 1):
            return algorithm.meta_gradient
        return partial(self.meta_gradient, algorithm)

    def meta_gradient(
        self, algorithm: Algorithm, meta: Tensors, chunk: TensorEpisode, context: Context
    ) -> MetaGradient:
        """`Algorithm.meta_gradient` of a chunk.

        Args:
            algorithm: Algorithm whose meta-gradient it is.
            meta: Leaves that require gradient.
            chunk: One episode, or with `context.batched` several with a leading axis B.
            context: Training context.
        """
        if self.kind == "each" and context.batched:
            alone = context.with_batched(False)
            return _summed([self.meta_gradient(algorithm, meta, one, alone) for one in episodes_of(chunk)])
        if not self._is_plain:
            context = replace(context, run=self.runner)
        if self.unfolds and context.batched:
            context = replace(context, unfolded=True)
        with nullcontext() if self.compiler is None else self.compiler.watched():
            if self._capture is None:
                return algorithm.meta_gradient(meta, chunk, context)
            return self._replayed(self._capture, algorithm, meta, chunk, context)

    def _replayed(
        self, capture: Capture, algorithm: Algorithm, meta: Tensors, chunk: TensorEpisode, context: Context
    ) -> MetaGradient:
        leaves, tree = tree_flatten((meta, chunk))
        key = (tree, algorithm, context.bare(), tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves))

        def function(*tensors: Tensor) -> Sequence[Tensor]:
            at, episodes = tree_unflatten(list(tensors), tree)
            at = {name: tensor.detach().requires_grad_() for name, tensor in at.items()}
            found = algorithm.meta_gradient(at, episodes, context)
            return [*(found.gradient[name] for name in meta), *found.outcome]

        if key not in self._captured:
            self._captured[key] = capture(function, leaves, len(meta))
        *gradient, loss, score = (tensor.clone() for tensor in self._captured[key](*leaves))
        return MetaGradient(dict(zip(meta, gradient, strict=True)), Outcome(loss, score))


def episodes_of(chunk: TensorEpisode) -> list[TensorEpisode]:
    """The episodes of a chunk, each in storage of its own: kernels may round differently at other alignments."""

    def side(given: Examples, i: int) -> Examples:
        return Side(mapped(lambda x: x[i].clone(), given.x), given.y[i].clone())

    return [
        TensorEpisode(side(chunk.support, i), side(chunk.query, i), chunk.seed[i].clone(), chunk.classes[i].clone())
        for i in range(len(chunk.seed))
    ]


def _summed(parts: Sequence[MetaGradient]) -> MetaGradient:
    gradient = parts[0].gradient
    for part in parts[1:]:
        gradient = {name: gradient[name] + part.gradient[name] for name in gradient}
    outcomes = (torch.cat(values) for values in zip(*(part.outcome for part in parts), strict=True))
    return MetaGradient(gradient, Outcome(*outcomes))
