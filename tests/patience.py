"""Waiting in tests: no test depends on how fast the machine is, so all wait long, and end as soon as they can."""

import time
from collections.abc import Callable

PATIENT_S = 600.0
"""How long a test waits for what is bound to happen; only something broken takes that long."""


def wait_until(condition: Callable[[], object], *, every_s: float = 0.02, what: Callable[[], object] = str) -> None:
    """Return once `condition` holds.

    Args:
        condition: Asked again and again; should be cheap.
        every_s: Seconds between two questions.
        what: Gives what to show if it never holds.

    Raises:
        AssertionError: If it does not hold within `PATIENT_S`.
    """
    gives_up_s = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < gives_up_s, what()
        time.sleep(every_s)
