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
"""All phases, in the order of a step. "rest of the algorithm" holds the three before it, "evaluation" may hold any."""

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
    """The items, and what it takes to come by each marked, but not what is done with it."""
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
    """Within the block, phases of all threads of this process are marked by `mark(name)`, one such block at a time."""
    global _mark
    before, _mark = _mark, mark
    try:
        yield
    finally:
        _mark = before
