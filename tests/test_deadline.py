import threading

import pytest

from metaray.deadline import within


def test_what_is_in_time_returns_or_raises() -> None:
    assert within(60.0, lambda: 7) == 7 and within(60.0, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 // 0)


def test_what_is_late_is_given_up() -> None:
    held = threading.Event()
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.01 s"):
        within(0.01, held.wait)
    held.set()
