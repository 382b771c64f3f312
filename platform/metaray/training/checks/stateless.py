"""Whether a network is a function of its parameters and its input, as inner loops and several workers need it.

A learner is judged in the run, saved, built anew and judged again; two workers see other episodes than one. So nothing
that a forward pass leaves behind may matter to a later one: buffers and parameters stay as they are, and so does what
comes out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.episodes.inputs import Inputs, count, mapped, take, tensors_of
from metaray.errors import InputError
from metaray.models.conversion import shown
from metaray.models.model import trainable
from metaray.models.state import attributes, leaves, undone

REMEDY = (
    "a learner is built anew wherever it is used, and each worker has a network of its own. Use "
    "torch.nn.BatchNorm* for statistics (metaray puts one without running statistics in its place), compute the rest "
    "anew in each forward pass"
)


def check_single(context: Context, x: Inputs) -> None:
    """Refuse a network whose answer to an input depends on the others of the batch, with batch norm's statistics given.

    Args:
        context: Circumstances of an evaluation.
        x: [n, *feature] a batch that the network takes.

    Raises:
        InputError: Saying what may be the reason.
    """
    parameters: Tensors = {**trainable(context.network)}
    with undone(context.network), torch.no_grad():
        _, statistics = context.forward_recording(parameters, x)
        together = context.forward(parameters, x, statistics)
        # Pairs, since torch's own functions refuse to normalise a single example.
        apart = torch.cat(
            [context.forward(parameters, take(x, slice(i, i + 2)), statistics) for i in range(0, count(x) - 1, 2)]
        )
    # Kernels round differently for other sizes of a batch; what mixes inputs differs by much more.
    if not torch.allclose(together[: len(apart)], apart, rtol=1e-2, atol=1e-3 * float(together.abs().max())):
        raise InputError(
            "the network's answer to an input depends on the others of its batch, though batch_norm is 'inductive': "
            "a query alone would get another answer. Use torch.nn.BatchNorm* instead of torch's function "
            "batch_norm or statistics of your own, or say algorithm.batch_norm=transductive"
        )


class NetworkState(NamedTuple):
    """What a network holds at some time.

    Attributes:
        tensors: Parameters and buffers by name, in copy.
        attributes: Attributes by module and name, in a form that can be compared.
    """

    tensors: dict[str, Tensor]
    attributes: dict[tuple[str, str], tuple[Any, ...]]


def check_stateless(context: Context, one: Inputs, other: Inputs) -> None:
    """Refuse a network that a forward pass changes, in training or when judged.

    Args:
        context: Circumstances of any call; nothing else of it matters than the network and the precision.
        one: A batch that the network takes.
        other: Another.

    Raises:
        InputError: Naming the module, and what it does.
    """
    for training in (True, False):
        mode = "training" if training else "evaluation"
        circumstances = replace(context, training=training)
        with undone(context.network), torch.no_grad():
            _check_tensors(circumstances, one, mode)
        with undone(context.network), torch.no_grad():
            _check_attributes(circumstances, one, mode)
        with torch.no_grad():
            _check_outputs(circumstances, one, other, mode)


def left_by(network: nn.Module) -> NetworkState:
    """What a network holds now."""
    tensors: dict[str, Tensor] = dict(network.named_parameters()) | dict(network.named_buffers())
    found = {
        (name, attribute): tuple(_comparable(leaf) for leaf in leaves(value))
        for name, module in network.named_modules()
        for attribute, value in attributes(module).items()
    }
    return NetworkState({name: tensor.detach().clone() for name, tensor in tensors.items()}, found)


def require_unchanged(network: nn.Module, before: NetworkState, mode: str) -> None:
    """Refuse parameters and buffers that are others than they were.

    Raises:
        InputError: Naming the module.
    """
    after = left_by(network).tensors
    for name in sorted({*before.tensors, *after}):
        was, now = before.tensors.get(name), after.get(name)
        if was is not None and now is not None and _equal(was, now):
            continue
        if was is None:
            where, leaf = _owner(network, name)
            raise InputError(
                f"{where} makes its buffer {leaf!r} in a forward pass (in {mode}): make it where the network is built"
            )
        raise InputError(_changed(network, name, mode))


def _owner(network: nn.Module, name: str) -> tuple[str, str]:
    """The module that has a tensor, for messages, and the tensor's name there."""
    owner, _, leaf = name.rpartition(".")
    return shown(owner, network.get_submodule(owner)), leaf


def _changed(network: nn.Module, name: str, mode: str) -> str:
    where, leaf = _owner(network, name)
    what = f"parameter {leaf!r} in place" if name in dict(network.named_parameters()) else f"buffer {leaf!r}"
    return f"{where} changes its {what} in a forward pass (in {mode}), but {REMEDY}"


def _check_tensors(context: Context, x: Inputs, mode: str) -> None:
    """One forward pass leaves its input, and all parameters and buffers, as they are."""
    before, given = left_by(context.network), mapped(Tensor.clone, x)
    # Others than the network's own, which earlier passes may have brought to where they stay.
    parameters = {name: parameter.detach() * 1.01 + 1e-3 for name, parameter in trainable(context.network).items()}
    passed = {name: tensor.clone() for name, tensor in parameters.items()}
    context.forward(parameters, x)
    require_unchanged(context.network, before, mode)
    for name, tensor in parameters.items():
        if not _equal(tensor, passed[name]):
            raise InputError(_changed(context.network, name, mode))
    changed = [pair for pair in zip(tensors_of(given), tensors_of(x), strict=True) if not _equal(*pair)]
    for was, now in changed:
        now.copy_(was)
    if changed:
        raise InputError(
            f"{shown('', context.network)} changes its input in place (in {mode}), but inner steps send the same "
            "support set through the network again and again: work on a copy, or without inplace=True"
        )


def _check_attributes(context: Context, x: Inputs, mode: str) -> None:
    """What a pass leaves in plain attributes may depend on its input, but not on how many passes there were."""
    states = []
    for _ in range(2):
        _forward(context, x, seed=0)
        states.append(left_by(context.network).attributes)
    for (name, attribute), first in states[0].items():
        if states[1].get((name, attribute), first) != first:
            where = shown(name, context.network.get_submodule(name))
            raise InputError(f"{where} changes its {attribute!r} with every forward pass (in {mode}), but {REMEDY}")


def _check_outputs(context: Context, one: Inputs, other: Inputs, mode: str) -> None:
    """What comes out for a batch does not depend on what was seen before, nor when judged on torch's generator."""
    network = context.network

    def passes(record: Callable[[str], None] = lambda _: None) -> Iterator[Tensor]:
        with undone(network):
            record("fresh")
            yield _forward(context, other, seed=0)
        with undone(network):
            _forward(context, one, seed=1)
            record("again")
            yield _forward(context, other, seed=0 if context.training else 2)

    fresh, again = passes()
    if _equal(fresh, again):
        return
    name = _first_to_differ(network, passes)
    why = "what it has seen before" if context.training else "chance, or on what it has seen before"
    also = (
        "; random numbers must come from torch's generator"
        if context.training
        else "; random numbers belong to training (F.dropout needs training=self.training)"
    )
    raise InputError(
        f"what {shown(name, network.get_submodule(name))} gives for the same input depends on {why} (in {mode}), but "
        f"{REMEDY}{also}"
    )


def _first_to_differ(network: nn.Module, passes: Callable[[Callable[[str], None]], Iterator[Tensor]]) -> str:
    """The innermost module whose output differs between the recorded passes, though what it was given does not."""
    calls: dict[str, list[tuple[str, list[Any], list[Any]]]] = {"fresh": [], "again": []}
    with _hooked(network, calls) as record:
        list(passes(record))
    for (name, given, found), (_, given_again, found_again) in zip(calls["fresh"], calls["again"], strict=False):
        if given == given_again and found != found_again:
            return name
    return ""


@contextmanager
def _hooked(
    network: nn.Module, calls: dict[str, list[tuple[str, list[Any], list[Any]]]]
) -> Iterator[Callable[[str], None]]:
    """Within the block, calls of modules are added to the list whose key was given last."""
    current: list[str] = []

    def recorder(name: str) -> Callable[..., None]:
        def note(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if current:
                given = [_comparable(leaf) for leaf in leaves([args, kwargs])]
                calls[current[-1]].append((name, given, [_comparable(leaf) for leaf in leaves(output)]))

        return note

    def record(key: str) -> None:
        current[:] = [key]

    hooks = [m.register_forward_hook(recorder(name), with_kwargs=True) for name, m in network.named_modules()]
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def _forward(context: Context, x: Inputs, *, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return context.forward(dict(trainable(context.network)), x)


def _comparable(leaf: Any) -> Any:
    if isinstance(leaf, Tensor | np.ndarray):
        array = (
            leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() if isinstance(leaf, Tensor) else leaf
        )
        return (tuple(leaf.shape), str(leaf.dtype), array.tobytes())
    return repr(leaf)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit; what is no number equals itself."""
    return torch.equal(one, other) or bool(_comparable(one) == _comparable(other))
