"""What computes the regions of an algorithm: as graphs, made once for each kind of input, and perhaps again backwards.

Under `torch.vmap` a region is lowered: a function of autograd, which vmap asks how it is mapped, gets the chunk as it
lies in memory, and computes the region mapped over it as one graph, which autograd records then.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metaray.algorithms.families.inner_loop import InnerStep
from metaray.models.batch_norm import is_watched
from metaray.training.execution.recomputing import recomputed
from metaray.training.execution.tracing import Flat

Region = Callable[..., Any]
Make = Callable[[Flat, Sequence[Tensor]], Flat]
"""What makes, of a function of tensors and inputs like those that it will get, what computes it from then on."""


class Shape(NamedTuple):
    """What a graph is made for: of each input what is not its values."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool


class Prepared(NamedTuple):
    """A function that was made, and how its results are put together again."""

    function: Flat
    unflatten: Callable[[Sequence[Tensor]], Any]


class Runner:
    """Computes regions, see `metaray.algorithms.context.Runner`.

    Args:
        make: Makes graphs of functions; None leaves them as they are.
        recomputes: An inner step keeps only its inputs, and is computed again for its derivatives.
        randomness: Randomness of what is mapped over.
    """

    def __init__(self, make: Make | None, *, recomputes: bool = False, randomness: str = "different") -> None:
        self._make, self._recomputes, self._randomness = make, recomputes, randomness
        self._prepared: dict[Hashable, Prepared] = {}
        self.regions: list[str] = []
        """Those that graphs were made of."""
        self.steps = 0
        """Inner steps that were computed so that they keep their inputs alone."""

    def __call__(self, region: Region, *given: Any) -> Any:
        """`region(*given)`; line by line where more than one map over a chunk goes on around it."""
        again = self._recomputes and isinstance(region, InnerStep)
        if self._make is None and not again:
            return region(*given)
        around = retrieve_all_functorch_interpreters()
        if len(around) > 1 or any(one.key() != TransformType.Vmap for one in around) or _is_watched(region):
            return region(*given)
        leaves, tree = tree_flatten(given)
        call = _Call(self, region, tree, tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves), again)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not around:
            return call.unflatten(call.physical((None,) * len(tensors), tensors))
        return call.unflatten(_Lowered.apply(call, *tensors))  # type: ignore[no-untyped-call]


class _Call:
    """One call of a region: what is static of it."""

    def __init__(self, runner: Runner, region: Region, tree: TreeSpec, static: tuple[Any, ...], again: bool) -> None:
        self._runner, self._region, self._tree, self._static, self._again = runner, region, tree, static, again
        self._put_together: Callable[[Sequence[Tensor]], Any] | None = None

    def unflatten(self, outputs: Sequence[Tensor]) -> Any:
        """What the region returns, of its tensors."""
        assert self._put_together is not None
        return self._put_together(outputs)

    def physical(self, in_dims: tuple[int | None, ...], tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The tensors that the region returns, mapped over `in_dims` where there are any."""
        flat = _Flat(self._region, self._tree, self._static)
        function: Flat = flat
        if any(dim is not None for dim in in_dims):
            function = torch.vmap(flat, in_dims, randomness=self._runner._randomness)
        if self._again:
            self._runner.steps += 1
            found = recomputed(lambda *given: self._made(function, flat, in_dims, given), tensors)
        else:
            found = self._made(function, flat, in_dims, tensors)
        return found

    def _made(
        self, function: Flat, flat: "_Flat", in_dims: tuple[int | None, ...], tensors: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        make, prepared = self._runner._make, self._runner._prepared
        if make is None:
            outputs = function(*tensors)
            self._put_together = flat.unflatten
            return outputs
        differentiates = torch.is_grad_enabled()
        shapes = tuple(
            Shape(t.shape, t.stride(), t.dtype, t.device, t.requires_grad and differentiates) for t in tensors
        )
        key = (self._region, self._tree, self._static, in_dims, shapes, differentiates)
        if key not in prepared:
            prepared[key] = Prepared(make(function, tensors), flat.unflatten)
            self._runner.regions.append(type(self._region).__name__)
        self._put_together = prepared[key].unflatten
        return prepared[key].function(*tensors)


class _Flat:
    """A region as a function of its tensors alone, to those that it returns."""

    def __init__(self, region: Region, tree: TreeSpec, static: tuple[Any, ...]) -> None:
        self._region, self._tree, self._static = region, tree, static
        self._outputs: tuple[TreeSpec, list[Any]] | None = None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        dynamic = iter(tensors)
        # A tensor stands where nothing static does: None counts as a leaf as well.
        count = self._tree.num_leaves - len(tensors)
        assert count == sum(leaf is not None for leaf in self._static)
        leaves = [next(dynamic) if leaf is None else leaf for leaf in self._static]
        found, tree = tree_flatten(self._region(*tree_unflatten(leaves, self._tree)))
        self._outputs = tree, [None if isinstance(leaf, Tensor) else (leaf,) for leaf in found]
        return tuple(leaf for leaf in found if isinstance(leaf, Tensor))

    def unflatten(self, outputs: Sequence[Tensor]) -> Any:
        """What the region returns, of its tensors."""
        assert self._outputs is not None
        tree, static = self._outputs
        dynamic = iter(outputs)
        return tree_unflatten([next(dynamic) if leaf is None else leaf[0] for leaf in static], tree)


class _Lowered(torch.autograd.Function):
    """A region under `torch.vmap`: only the map itself is ever asked for."""

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Never run."""
        raise AssertionError("a region is lowered where episodes are mapped over")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Never run."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: _Call, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The region mapped over the chunk as it lies in memory."""
        outputs = tuple(call.physical(tuple(in_dims[1:]), tensors))
        return outputs, (0,) * len(outputs)


def _is_watched(region: Region) -> bool:
    """Whether somebody watches the modules of a region, so that it is more than a function of its arguments."""
    context = getattr(region, "context", None)
    if context is None:
        return False
    root = getattr(region, "module", context.network)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = any(getattr(module, kind) for module in root.modules() for kind in hooks)
    return hooked or is_watched(root)
