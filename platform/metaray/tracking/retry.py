"""The one retry helper."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def retry(
    action: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    transient: Callable[[Exception], bool] = lambda error: True,
    attempts: int = 4,
    delay_s: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call `action` until it returns, waiting twice as long after each failure.

    Args:
        action: safe to call again after it failed half-way.
        on: errors that another attempt may cure; anything else is raised at once.
        transient: of those, whether this one is worth another attempt.
        attempts: calls in all; the error of the last one is raised.
        delay_s: the wait after the first failure.
        sleep: waits that many seconds.
    """
    assert attempts >= 1
    for attempt in range(attempts - 1):
        try:
            return action()
        except on as error:
            if not transient(error):
                raise
        sleep(delay_s * 2**attempt)
    return action()
