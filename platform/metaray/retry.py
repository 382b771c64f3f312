"""The one retry helper, and how long to have patience."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

AWAY_WITHIN_S = 120.0
"""How long a server may not answer that did before."""

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
    """Call `action` until it returns, or there is no more wait; then its error is raised.

    Args:
        action: Safe to call again after it failed half-way.
        on: Errors that another attempt may cure; anything else is raised at once.
        transient: Whether one of these errors is worth another attempt.
        waits: Seconds after each failure; asked for one by one, as long as `action` fails.
        sleep: Function that waits so many seconds.
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
    """Waits for `retry`: the same again and again, for so many seconds, or until `enough` says so.

    Args:
        within_s: No attempt but the last starts later than this.
        every_s: The wait.
        enough: Function that is asked before each attempt.
        once: Function that is called after the first failure, for instance to say what is being waited for.
    """
    deadline_s = time.monotonic() + within_s
    told = False
    while time.monotonic() < deadline_s and not enough():
        yield every_s
        if not told:
            once()
        told = True
