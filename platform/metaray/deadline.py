"""How long somebody else may take: a server that sends a byte a second never runs into a socket's own timeout."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, action: Callable[[], T]) -> T:
    """Call `action` in a thread and return its result, waiting for at most `limit_s` seconds.

    An action that is late goes on in its thread, which ends with the process.

    Raises:
        TimeoutError: If the action takes longer.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def act() -> None:
        try:
            returned.append(action())
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    thread = threading.Thread(target=act, name="within", daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeoutError(f"no whole answer within {limit_s:g} s")
    return returned[0]
