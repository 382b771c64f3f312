"""Runs one case after another, each in a child forked from this warmed process, with limits of time and memory."""

import faulthandler
import gc
import os
import pickle
import random
import resource
import select
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from metaray.errors import InputError

Outcome = Literal["clean", "same", "other", "wrong", "exception", "hang", "crash"]
OUTCOMES: tuple[Outcome, ...] = ("clean", "same", "other", "exception", "hang", "crash", "wrong")
BAD: tuple[Outcome, ...] = ("wrong", "exception", "hang", "crash")

WITHIN_S = 20.0
"""A case takes milliseconds; what takes so long hangs, on a busy machine too."""
CPU_WITHIN_S = 10
MEMORY_MB = 2048
"""How much more than the warmed process a case may take."""


@dataclass(frozen=True)
class Surface:
    """Something that reads what others wrote.

    Attributes:
        name: Of it.
        damage: Gives a damaged input, from a generator.
        read: Reads an input, and gives what depends on it, or raises; runs in a child.
        whole: The undamaged input.
        refusals: What `read` may raise.
        exact: Whether an input that reads differently is accepted wrongly, because a checksum covers all of it.
    """

    name: str
    damage: Callable[[random.Random], Any]
    read: Callable[[Any], object]
    whole: Any
    refusals: tuple[type[BaseException], ...] = (InputError,)
    exact: bool = False


@dataclass
class Report:
    """What came of the cases of a surface.

    Attributes:
        surface: Its name.
        counts: By outcome.
        bad: Case numbers and what was seen, of those that ended badly.
    """

    surface: str
    counts: Counter[Outcome] = field(default_factory=Counter)
    bad: list[tuple[int, Outcome, str]] = field(default_factory=list)


def fuzz(surface: Surface, seed: int, cases: range) -> Report:
    """Try damaged inputs; case n depends on the surface's name, the seed and n alone."""
    report = Report(surface.name)
    gc.collect()
    gc.freeze()  # so that the children do not copy the parent's memory page by page
    kind, expected = _in_child(lambda: surface.read(surface.whole), surface.refusals)
    if kind != "same":
        raise AssertionError(f"{surface.name}: the undamaged input is not read: {kind} {expected}")
    for case in cases:
        given = surface.damage(random.Random(f"{surface.name}/{seed}/{case}"))
        outcome, seen = _in_child(lambda: surface.read(given), surface.refusals)  # noqa: B023
        if outcome == "same" and seen != expected:
            outcome = "wrong" if surface.exact else "other"
        report.counts[outcome] += 1
        if outcome in BAD:
            report.bad.append((case, outcome, str(seen)))
    return report


def _in_child(read: Callable[[], object], refusals: tuple[type[BaseException], ...]) -> tuple[Outcome, object]:
    """What became of it; "same" with the result if it was read."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        try:
            _limit()
            answer = _attempt(read, refusals)
            with os.fdopen(theirs, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(theirs)
    return _answer(pid, ours)


def _limit() -> None:
    faulthandler.disable()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + (MEMORY_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_WITHIN_S, CPU_WITHIN_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _attempt(read: Callable[[], object], refusals: tuple[type[BaseException], ...]) -> tuple[Outcome, object]:
    try:
        return "same", read()
    except refusals as error:
        # A refusal that says nothing, or shows an error of Python's own, is none.
        return ("clean", "") if str(error).strip() else ("exception", f"no message: {traceback.format_exc()}")
    except BaseException:  # noqa: BLE001 - looked at in the parent
        return "exception", traceback.format_exc()


def _answer(pid: int, pipe: int) -> tuple[Outcome, object]:
    data = b""
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while True:
            if not select.select([file], [], [], WITHIN_S)[0]:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "hang", f"no answer within {WITHIN_S:g} s"
            part = file.read(1 << 16)
            if not part:
                break
            data += part
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ("hang", "too much CPU time") if number == signal.SIGXCPU else ("crash", f"signal {number}")
    if not data:
        return "crash", f"ended without an answer, status {status}"
    outcome: tuple[Outcome, object] = pickle.loads(data)
    return outcome
