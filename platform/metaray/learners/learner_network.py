"""The network of a learner: built anew, and again what it was when the learner was made."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from metaray.algorithms.context import Tensors
from metaray.errors import InputError
from metaray.models.state import Marks, kept, marks_of, rebuilt, restore, unlike
from metaray.tracebacks import summary

T = TypeVar("T")


def built(build: Callable[[], T]) -> T:
    """Call `build` and return its result.

    Raises:
        InputError: If the code of a model or algorithm raises an error.
    """
    try:
        return build()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"its network cannot be built: {summary(error)}") from error


def restored(build: Callable[[], nn.Module], state: Tensors, marks: Marks) -> nn.Module:
    """Build a network and load the frozen parameters and persistent buffers of `state` into it.

    Raises:
        InputError: If the network cannot be built, or a tensor that is not in `state` differs from its checksum in
            `marks`.
    """
    network = built(build)
    if state:
        restore(network, state)
    if marks and (changed := unlike(marks, marks_of(rebuilt(network)))):
        raise InputError(
            f"building its network gives another {changed[0]!r} than it was trained with: a file that is read there "
            "has changed, or its code. Bring that back (a persistent buffer would have been saved with the learner)"
        )
    return network


def check_state(network: nn.Module, state: Tensors, marks: Marks) -> None:
    """Check that frozen parameters and buffers are those of a learner's model, unchanged.

    Args:
        network: Freshly built network.
        state: Frozen parameters and buffers of the learner, by name.
        marks: Checksums of the learner's tensors that are not in `state`.
    """
    wanted = kept(network)
    if not state and not marks:
        # Learners of before they were saved: buffers are rebuilt, and nothing was frozen.
        wanted = {name: tensor for name, tensor in wanted.items() if isinstance(tensor, nn.Parameter)}
    check_tensors(wanted, state, "frozen parameter or buffer")
    for name, tensor in state.items():
        if isinstance(wanted[name], nn.Parameter) and not tensor.isfinite().all():
            raise InputError(f"frozen parameter {name} is not finite")
    restored(lambda: network, state, marks)


def check_tensors(wanted: Tensors, found: Tensors, what: str) -> None:
    """Check that tensors have the names, shapes and types of those of a learner's model."""
    for name in sorted({*wanted, *found}):
        sides = [one.get(name) for one in (wanted, found)]
        shapes = ["absent" if side is None else str(list(side.shape)) for side in sides]
        types = ["absent" if side is None else str(side.dtype) for side in sides]
        for want, have in (shapes, types):
            if want != have:
                raise InputError(f"{what} {name}: the model wants {want}, the file has {have}")
