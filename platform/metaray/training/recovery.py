"""What to do when something fails: pure decisions, for others to carry out."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

FailureKind = Literal["worker lost", "worker hung", "exception", "checkpoint", "last checkpoint"]
Action = Literal["restart", "go on", "wait", "raise"]

LOSSES: tuple[FailureKind, ...] = ("worker lost", "worker hung", "exception")
RESTARTS, RETRIES_OF_AN_EXCEPTION, WAITS = 5, 1, 6
WAIT_S = 10.0


class Failure(NamedTuple):
    """One failure of a run.

    Attributes:
        kind: "worker lost" (its process or node is gone), "worker hung", "exception" (a worker raised one),
            "checkpoint" (one could not be written, and there will be another), "last checkpoint" (there will be none).
        step: Step of the newest checkpoint at that time.
        text: What is known of it.
        told: Where an exception came up, in few lines.
        traceback: The whole of it.
    """

    kind: FailureKind
    step: int
    text: str = ""
    told: str = ""
    traceback: str = ""


class Explanation(NamedTuple):
    """What is known of the failures of a run besides their messages.

    Attributes:
        kind: Kind of the last failure; None if there was none.
        told: Where its exception came up, in few lines; empty if it was no exception.
        tracebacks: Those of all ranks and attempts, whole.
    """

    kind: FailureKind | None = None
    told: str = ""
    tracebacks: str = ""


def next_action(failures: Sequence[Failure]) -> Action:
    """What to do after the last of `failures`, given all of them.

    "restart" the workers from the newest checkpoint; "go on" without this checkpoint; "wait" `WAIT_S` and try it again;
    "raise" when that has not helped before. What counts is progress: failures before a newer checkpoint are forgotten.
    """
    last = failures[-1]
    if last.kind == "checkpoint":
        return "go on"
    alike = [f for f in failures if f.step == last.step]
    if last.kind == "last checkpoint":
        return "wait" if sum(f.kind == last.kind for f in alike) <= WAITS else "raise"
    if sum(f.kind == "exception" for f in alike) > RETRIES_OF_AN_EXCEPTION:
        return "raise"
    return (
        "restart" if sum(f.kind in ("worker lost", "worker hung", "exception") for f in alike) <= RESTARTS else "raise"
    )


def given_up(failures: Sequence[Failure]) -> str:
    """Why it was "raise", in words."""
    last = failures[-1]
    alike = [f for f in failures if f.step == last.step and f.kind in LOSSES]
    times = "1 failure" if len(alike) == 1 else f"{len(alike)} failures"
    return f"gave up after {times} without a checkpoint beyond step {last.step}; {last.text}"


class Heartbeat(NamedTuple):
    """How a rank is.

    Attributes:
        doing: What it said last.
        for_s: Seconds since it last got ahead.
        silent_s: Seconds since it last said anything; a process that still runs speaks about once a second.
    """

    doing: str
    for_s: float
    silent_s: float


REDUCING, WAITING = "reducing", "waiting for episodes"
SILENT_S = 10.0


def hung(heartbeats: Mapping[int, Heartbeat], timeout_s: float) -> list[int]:
    """The ranks to blame where a run has not got ahead for `timeout_s` seconds.

    First those whose process stands still; then those that do something by themselves; then those that wait for
    episodes, though the fault may be a sampler's; and if each waits for another, all.
    """
    late = {rank: heartbeat for rank, heartbeat in heartbeats.items() if heartbeat.for_s > timeout_s}
    silent = [rank for rank, heartbeat in late.items() if heartbeat.silent_s > min(SILENT_S, timeout_s)]
    busy = [rank for rank, heartbeat in late.items() if heartbeat.doing not in (REDUCING, WAITING)]
    waiting = [rank for rank, heartbeat in late.items() if heartbeat.doing == WAITING]
    return silent or busy or waiting or (list(late) if len(late) == len(heartbeats) else [])
