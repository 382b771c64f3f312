"""The one retry helper, and how long to have patience."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

AWAY_WITHIN_S = 120.0
"""Seconds for which a server that answered before may fail to answer."""

T = TypeVar("T")

SHORTLY = (0.5, 1.0, 2.0)


def retry(
    action: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    transient: Callable[[Exception], bool] = lambda error: True,
    waits: Iterable[float] = SHORTLY,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call `action` until it succeeds, or until `waits` ends and its last error is raised.

    Args:
        action: Function to call; it must be safe to call again after a failure half-way.
        on: Types of errors that another attempt may cure; other errors are raised at once.
        transient: Function that says whether one of these errors is worth another attempt.
        waits: Seconds to wait after each failure, requested one by one.
        sleep: Function that waits for a number of seconds.
    """
    for wait_s in waits:
        try:
            return action()
        except on as error:
            if not transient(error):
                raise
        sleep(wait_s)
    return action()


def patience(
    within_s: float,
    *,
    every_s: float = 2.0,
    enough: Callable[[], bool] = lambda: False,
    once: Callable[[], None] = lambda: None,
) -> Iterator[float]:
    """Equal waits for `retry`, until a time limit or until `enough` returns true.

    Args:
        within_s: Seconds after which no attempt starts but a last one.
        every_s: Seconds of each wait.
        enough: Function that is called before each attempt; if it returns true, waiting ends.
        once: Function that is called after the first failure, for instance to say what is being waited for.
    """
    deadline_s = time.monotonic() + within_s
    told = False
    while time.monotonic() < deadline_s and not enough():
        yield every_s
        if not told:
            once()
        told = True
