"""A region as a graph of torch's operations, which can be differentiated as the region itself can.

`make_fx` writes down what happens below autograd: derivatives that a region takes become operations like any other, and
the graph, run under autograd, is differentiated again. Two things would be wrong in it:

- torch detaches outputs that it saves for a derivative (those of `relu`, `rsqrt`, `log_softmax`). In the graph that
  would cut second derivatives, which the region has: such a detach is taken out.
- What a region detaches itself, and what it computes where it has switched derivatives off (as first-order inner
  gradients are), must stay cut: a detach is put there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DETACH = torch.ops.aten.detach.default
CUT, MEANT = "metaray_cut", "metaray_meant"

Flat = Callable[..., Sequence[Tensor]]


class NotTraceable(Exception):
    """A region does what no graph of it can say."""


def traced(function: Flat, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The graph of a function on inputs like these. No random number is used up.

    Args:
        function: Function of tensors, to a sequence of tensors.
        inputs: Like those that it will be run on: of their shapes, types and strides, requiring gradients or not.

    Raises:
        NotTraceable: If it changes a tensor's place among derivatives, or keeps one that was computed before.
        RuntimeError: If torch raises it, for instance where the function asks for a value.
    """
    notes = _Notes()

    def watched(*given: Tensor) -> list[Tensor]:
        with _Detachments(notes), _Operations(notes):
            return list(function(*given))

    given = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs]
    devices = {tensor.device for tensor in inputs if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        graph: fx.GraphModule = make_fx(watched)(*given)
    _require_closed(graph)
    _mend(graph.graph)
    graph.recompile()
    return graph


class _Notes:
    """What is going on at the moment.

    Attributes:
        differentiates: Whether derivatives were switched on at the beginning.
        detaches: Whether the region itself detaches something.
    """

    def __init__(self) -> None:
        self.differentiates = torch.is_grad_enabled()
        self.detaches = False


class _Detachments(TorchFunctionMode):
    """Sees where the region itself detaches tensors."""

    def __init__(self, notes: _Notes) -> None:
        super().__init__()
        self._notes = notes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CHANGES:
            raise NotTraceable("it changes a tensor's data or its place among derivatives")
        if func in _HOOKS:
            raise NotTraceable("it hooks into the gradient of a tensor, of which a graph would know nothing")
        if func in _READS:
            raise NotTraceable("it reads the values of a tensor, which a graph would keep for all others")
        if func not in _DETACHES:
            return func(*args, **(kwargs or {}))
        self._notes.detaches = True
        try:
            return Tensor.detach(*args)
        finally:
            self._notes.detaches = False


_DETACHES = {Tensor.detach, torch.detach, Tensor.data.__get__}  # type: ignore[attr-defined]
_HOOKS = {Tensor.register_hook, Tensor.register_post_accumulate_grad_hook}
_READS = {
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.__dlpack__,
    Tensor.data_ptr,
    Tensor.storage,
    Tensor.untyped_storage,
}
"""What goes past torch's operations, so that nothing of it is seen; `item` and the like torch refuses by itself."""
_CHANGES = {Tensor.data.__set__, Tensor.detach_, torch.detach_}  # type: ignore[attr-defined]


class _Operations(TorchDispatchMode):
    """Marks the nodes of what is meant to be cut off from derivatives."""

    def __init__(self, notes: _Notes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._notes = notes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        mode = get_proxy_mode()
        assert mode is not None
        if torch.Tag.dynamic_output_shape in func.tags and (func not in _INDEXES or any(map(_is_mask, args[1]))):
            raise NotTraceable("the shape of what it computes depends on values")
        nodes = mode.tracer.graph._root
        last = nodes.prev
        result = func(*args, **(kwargs or {}))
        while nodes.prev is not last and last.next is not nodes:
            last = last.next
            last.meta[CUT] = self._notes.differentiates and not torch.is_grad_enabled()
            last.meta[MEANT] = self._notes.detaches
        return result


_INDEXES = {torch.ops.aten.index.Tensor}


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _require_closed(graph: fx.GraphModule) -> None:
    """No tensor is kept in a graph that derivatives should reach."""
    for node in graph.graph.find_nodes(op="get_attr"):
        kept = getattr(graph, str(node.target), None)
        if isinstance(kept, Tensor) and kept.requires_grad and not kept.is_leaf:
            raise NotTraceable("it uses a tensor that was computed before, which nobody gave it")


def _mend(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is DETACH and not node.meta.get(MEANT):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        if not node.meta.get(CUT) or not isinstance(node.meta.get("val"), Tensor):
            continue
        users = [user for user in node.users if not user.meta.get(CUT)]
        if users:
            with graph.inserting_after(node):
                end = graph.call_function(DETACH, (node,))
            for user in users:
                user.replace_input_with(node, end)
    graph.eliminate_dead_code()
