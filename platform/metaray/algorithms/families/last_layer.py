"""A network of which the end alone adapts: everything before sees the support set once, however many steps follow."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, Self

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import STATISTICS
from metaray.episodes.tensors import Examples
from metaray.models.batch_norm import Protocol, normalises_batches


class LastLayer(NamedTuple):
    """The end of a network on a support set.

    Attributes:
        loss: the support loss as a function of the network's parameters, connected to those before the end by the
            features that were computed of them.
        statistics: under inductive batch norm those of the support set, named as `predict_at` needs them.
    """

    loss: Callable[[Tensors], Tensor]
    statistics: Tensors


def last_layer(
    meta: Tensors, moving: Collection[str], support: Examples, context: Context, protocol: Protocol
) -> LastLayer | None:
    """Send a support set through a network, and keep what reaches the module whose parameters adapt.

    Args:
        meta: all parameters of the network.
        moving: names of those that adapt.
        support: of the task.
        context: of the call.
        protocol: of batch norm.

    Returns:
        None where nothing can be kept: no module has these parameters and no others, it normalises batches, it is not
        called once, with one tensor, as the last thing that the network does, or something else uses them as well.
    """
    name = _module_of(context.network, moving)
    if name is None:
        return None
    module = context.network.get_submodule(name)
    statistics: Tensors = {}
    with _Watch(module, [meta[full] for full in moving]) as watch:
        if protocol == "transductive":
            output = context.forward(meta, support.x)
        else:
            output, statistics = context.forward_recording(meta, support.x)
    features = watch.features_before(output)
    if features is None:
        return None

    def loss(theta: Tensors) -> Tensor:
        own = {full.removeprefix(f"{name}."): theta[full] for full in moving}
        return context.loss(context.call(module, own, features), support.y)

    return LastLayer(loss, {STATISTICS + layer: value for layer, value in statistics.items()})


def _module_of(network: nn.Module, moving: Collection[str]) -> str | None:
    """The outermost module, the network aside, with these parameters and no others; None if it normalises batches."""
    for name, module in network.named_modules():
        if name and {f"{name}.{own}" for own, _ in module.named_parameters()} == set(moving):
            return None if normalises_batches(module) else name
    return None


class _Watch(TorchFunctionMode):
    """Sees the calls of a module, and whether its parameters are used outside of them, as where weights are tied.

    Args:
        module: to watch.
        parameters: what stands for its parameters.
    """

    def __init__(self, module: nn.Module, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self._module, self._parameters = module, {id(parameter) for parameter in parameters}
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
        self._inside, self._used_outside = False, False

    def features_before(self, output: Tensor) -> Tensor | None:
        """The one tensor that made the module give `output`; None if that is not all that happened."""
        if self._used_outside or len(self._calls) != 1:
            return None
        args, kwargs, found = self._calls[0]
        if found is not output or kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
            return None
        return args[0]

    def __enter__(self) -> Self:
        self._handles = [
            self._module.register_forward_pre_hook(self._enter),
            self._module.register_forward_hook(self._leave, with_kwargs=True),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._inside:
            self._used_outside |= any(id(leaf) in self._parameters for leaf in tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def _enter(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        self._inside = True

    def _leave(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._calls.append((args, kwargs, output))
        self._inside = False
