"""The phases of an outer step, marked where they happen for a profiler; to everybody else they cost next to nothing."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, ParamSpec, TypeVar, get_args

Phase = Literal[
    "waiting for episodes",
    "sampling episodes",
    "moving to the device",
    "inner loop",
    "query pass",
    "outer backward",
    "rest of the algorithm",
    "reduction",
    "optimiser",
    "evaluation",
    "checkpoint",
]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""Names of all phases, in the order of a step.

"rest of the algorithm" contains the three before it, and "evaluation" may contain any.
"""

Mark = Callable[[str], AbstractContextManager[object]]
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_UNMARKED = nullcontext()
_mark: Mark | None = None


def phase(name: Phase) -> AbstractContextManager[object]:
    """Mark the block as a part of this phase; without a profiler this does nothing."""
    return _UNMARKED if _mark is None else _mark(name)


def in_phase(name: Phase) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark all that a function does."""

    def marked(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            if _mark is None:
                return function(*args, **kwargs)
            with _mark(name):
                return function(*args, **kwargs)

        return inside

    return marked


def each(name: Phase, items: Iterable[T]) -> Iterator[T]:
    """Iterate over items, marking as a phase the time to produce each item, but not its use."""
    iterator = iter(items)
    while True:
        with phase(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def marked_by(mark: Mark) -> Iterator[None]:
    """Within the block, call `mark(name)` around the phases of all threads; one such block can be open at a time."""
    global _mark
    before, _mark = _mark, mark
    try:
        yield
    finally:
        _mark = before
