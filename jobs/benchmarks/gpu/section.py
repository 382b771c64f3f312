"""Running the cases of a section: within its time, whatever fails, each one on record before the next begins."""

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from jobs.benchmarks.gpu.record import BAD, Record, Row, Values


class Wrong(Exception):
    """A check that does not hold.

    Args:
        why: in a sentence.
        values: what was found all the same.
    """

    def __init__(self, why: str, values: Values) -> None:
        super().__init__(why)
        self.values = values


class Skipped(Exception):
    """A case that cannot be run here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What all cases have in common.

    Attributes:
        device: that is looked at.
        scratch: an empty folder for files.
        small: tiny networks and few steps, as suits a CPU that only checks the code.
        train_s: seconds to train for.
        omniglot: Omniglot's class store, if there is one.
    """

    device: torch.device
    scratch: Path
    small: bool = False
    train_s: float = 60.0
    omniglot: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether there are kernels to wait for and memory to be counted."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has done all that it was told."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


class Case(NamedTuple):
    """One thing to find out."""

    name: str
    run: Callable[[], Values]


class Section(NamedTuple):
    """Cases that belong together.

    Attributes:
        name: of the section.
        about: what is compared or measured, and within which bounds: a paragraph for whoever reads the table.
        cases: makes them, the most important first; must be quick, the work is theirs.
    """

    name: str
    about: str
    cases: Callable[[Setting], Iterator[Case]]


def skip(why: str) -> Callable[[], Values]:
    """What a case runs that is skipped."""

    def run() -> Values:
        raise Skipped(why)

    return run


def run_section(
    section: Section,
    setting: Setting,
    record: Record,
    *,
    until: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> None:
    """Run the cases, and put each on record.

    Args:
        section: whose cases.
        setting: of all.
        record: that is added to.
        until: asked between cases; True leaves out those that are left, by name.
        say: is told of every case.
    """
    started = time.perf_counter()
    record.begin(section.name, section.about)
    for case in _made(section, setting):
        if until():
            row = Row(section.name, case.name, "out of time", {}, "the section's time was over")
        else:
            record.runs(section.name, case.name)
            row = run_case(section.name, case)
            if row.status in BAD:
                _forget()
        record.add(row)
        say(told(row))
    record.end(section.name, time.perf_counter() - started, "whole")


def _made(section: Section, setting: Setting) -> Iterator[Case]:
    """The section's cases; where they cannot be made, a last one that says so."""
    try:
        yield from section.cases(setting)
    except Exception as error:  # noqa: BLE001 - the case raises it again, where it is put on record
        failed = error

        def run() -> Values:
            raise failed

        yield Case("making the cases", run)


def run_case(section: str, case: Case) -> Row:
    """How a case goes: no exception escapes."""
    started = time.perf_counter()

    def row(status: str, values: Values, why: str = "") -> Row:
        return Row(section, case.name, status, values, why, round(time.perf_counter() - started, 3))  # type: ignore[arg-type]

    try:
        return row("holds", case.run())
    except Wrong as wrong:
        return row("wrong", wrong.values, str(wrong))
    except Skipped as skipped:
        return row("skipped", {}, str(skipped))
    except torch.OutOfMemoryError as error:
        return row("out of memory", {}, str(error).splitlines()[0])
    except Exception:  # noqa: BLE001 - the next case may still tell something; the traceback is on record
        return row("failed", {}, traceback.format_exc())


def _forget() -> None:
    """Give back what a case held that broke off, so that the next has the device for itself."""
    gc.collect()
    if torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            return  # after a fault of the device nothing works any more: the cases that are left will say so


def told(row: Row) -> str:
    """A row in one line."""
    found = ", ".join(f"{name} {shown(value)}" for name, value in row.values.items())
    what = "" if row.status == "holds" else f" {row.status.upper()}"
    why = f" ({row.why.strip().splitlines()[-1]})" if row.why else ""
    return f"{row.section}: {row.case}:{what} {found}{why} [{row.seconds:.1f} s]"


def shown(value: object) -> str:
    """A value in a table: numbers to three digits, or whole where they are large."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.1e}"
