"""What a run says while it goes on: to progress displays, trackers and whoever else listens."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from metaray.errors import Diverged, RunFailed, RunStopped

EventKind = Literal[
    "note", "phase", "step", "judging", "metrics", "evaluation", "checkpoint", "failed", "diverged", "stopped"
]


ENDINGS: dict[EventKind, type[RunFailed | RunStopped]] = {
    "failed": RunFailed,
    "diverged": Diverged,
    "stopped": RunStopped,
}
"""Exception that ends a run, by the kind of event that reports it across processes."""


class Event(NamedTuple):
    """An event of a run, in plain numbers and text, so that it can be sent between processes.

    Attributes:
        kind: Kind of the event. For displays: "note" (a message in `text`), "phase" (the run enters the phase `text`),
            "step" (one outer step), "judging" (`done` of `episodes` on `text` are evaluated) and "evaluation" (meta-val
            was evaluated). For trackers: "metrics" (one metric in the journal). "checkpoint": a new one is complete.
            "failed", "diverged" or "stopped": how the run ended, with the reason in `text`.
        step: Number of outer steps done so far.
        values: Metrics by key.
        time_s: Seconds since the epoch.
        text: Text of the event, as `kind` says; empty for other kinds.
    """

    kind: EventKind
    step: int
    values: dict[str, float]
    time_s: float
    text: str = ""


class Listener(ABC):
    """Receives the events of a run, in order, on rank 0. Must return quickly."""

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Receive an event."""

    @abstractmethod
    def close(self) -> None:
        """Deliver what is left; no event comes after."""


def entering(text: str) -> Event:
    """The event that the run enters a phase before its first step: "checks", "MLflow", "Ray", "workers", ..."""
    return Event("phase", 0, {}, time.time(), text)


def sparingly(tell: Callable[[int], None], every_s: float = 0.5) -> Callable[[int], None]:
    """`tell`, but not more often than each `every_s` seconds, and not before so many have passed."""
    told_s = time.monotonic()

    def now_and_then(value: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= every_s:
            told_s = time.monotonic()
            tell(value)

    return now_and_then


class Fanout(Listener):
    """Passes each event on to several listeners."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = list(listeners)

    def on_event(self, event: Event) -> None:
        """Pass an event on to all listeners."""
        for listener in self._listeners:
            listener.on_event(event)

    def close(self) -> None:
        """Close all listeners, even if one fails; then raise the first error."""
        errors: list[Exception] = []
        for listener in self._listeners:
            try:
                listener.close()
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        if errors:
            raise errors[0]
