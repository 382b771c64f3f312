"""The retry helper."""

import pytest

from metaray.tracking.retry import retry


class Flaky:
    """Fails a number of times, then returns how often it was called."""

    def __init__(self, failures: int, error: type[Exception] = OSError) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"call {self.calls}")
        return self.calls


def test_waits_twice_as_long_each_time() -> None:
    waits: list[float] = []
    assert retry(Flaky(3), on=OSError, attempts=4, delay_s=0.5, sleep=waits.append) == 4
    assert waits == [0.5, 1.0, 2.0]


def test_raises_the_last_error() -> None:
    with pytest.raises(OSError, match="call 3"):
        retry(Flaky(9), on=OSError, attempts=3, sleep=lambda _: None)


def test_other_errors_pass_at_once() -> None:
    action = Flaky(9, KeyError)
    with pytest.raises(KeyError):
        retry(action, on=OSError, sleep=lambda _: None)
    assert action.calls == 1


def test_errors_that_will_not_go_away_pass_at_once() -> None:
    action = Flaky(9)
    with pytest.raises(OSError, match="call 1"):
        retry(action, on=OSError, transient=lambda error: False, sleep=lambda _: None)
    assert action.calls == 1
