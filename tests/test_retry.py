"""The retry helper."""

from itertools import islice

import pytest

from metaray.retry import SHORTLY, patience, retry


class Flaky:
    """Fails a number of times, then returns how often it was called."""

    def __init__(self, failures: int, error: type[Exception] = OSError) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"call {self.calls}")
        return self.calls


def test_waits_after_each_failure() -> None:
    waited: list[float] = []
    assert retry(Flaky(3), on=OSError, sleep=waited.append) == 4
    assert waited == list(SHORTLY)


def test_raises_the_last_error() -> None:
    with pytest.raises(OSError, match="call 3"):
        retry(Flaky(9), on=OSError, waits=(1, 1), sleep=lambda _: None)


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


def test_patience_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def sleep(wait_s: float) -> None:
        nonlocal now
        now += wait_s

    action = Flaky(99)
    with pytest.raises(OSError, match="call 6"):
        retry(action, on=OSError, waits=patience(10.0), sleep=sleep)
    assert now == 110.0


def test_patience_ends_when_it_is_enough_and_tells_once() -> None:
    told: list[str] = []
    action = Flaky(99)
    waits = patience(1e9, every_s=0.25, enough=lambda: action.calls >= 3, once=lambda: told.append("waiting"))
    with pytest.raises(OSError, match="call 4"):
        retry(action, on=OSError, waits=waits, sleep=lambda _: None)
    assert told == ["waiting"]
    assert list(islice(patience(1e9, once=lambda: told.append("too soon")), 1)) == [2.0]
    assert told == ["waiting"], "one that works at once says nothing"
