"""Each section in a process of its own: what it breaks, fills or hangs in ends with it, and the next one goes on."""

import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from jobs.benchmarks.gpu.record import Record
from jobs.benchmarks.gpu.section import Case, Section, Setting, run_section
from jobs.benchmarks.gpu.sections import BUDGETS_S, TRAIN_S, load

GRACE_S = 12.0
"""For the case that a section is in when its time is over; then it is killed."""
LEAST_S = 5.0
MOST_THREADS = 8
"""Of what is computed on the CPU for comparison; what is timed has the threads of its experiment, one."""
STACK_BEFORE_S = 2.0


def run_here(names: Sequence[str], setting: Setting, record: Record, budget_s: float) -> None:
    """Run sections in this process, which says where it was if it hangs until it is killed.

    Args:
        names: of the sections.
        setting: of all.
        record: that is added to.
        budget_s: for them together; no case is begun after it.
    """
    torch.set_num_threads(1 if setting.small else min(MOST_THREADS, os.cpu_count() or 1))
    started = time.monotonic()
    faulthandler.dump_traceback_later(budget_s + GRACE_S - STACK_BEFORE_S)
    try:
        for name in names:
            run_section(_loaded(name), setting, record, until=lambda: time.monotonic() - started > budget_s)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _loaded(name: str) -> Section:
    """A section; where it cannot be imported, one whose only case says so."""
    try:
        return load(name)
    except Exception as error:  # noqa: BLE001 - the case raises it again, where it is put on record
        failed = error

        def cases(_: Setting) -> Iterator[Case]:
            raise failed

        return Section(name, "", cases)


def supervised(names: Sequence[str], options: argparse.Namespace, record: Record) -> Record:
    """Run sections one after the other, each in a process, within their time and that of all; returns the record.

    Args:
        names: of the sections.
        options: of the command line, which the processes are given on.
        record: that is added to.
    """
    ends = time.monotonic() + options.budget_s
    for name in names:
        left_s = ends - time.monotonic()
        if left_s < LEAST_S:
            _note_end(record, name, 0.0, "not begun: the time for all was over")
            continue
        # Its grace is part of what is left, so that all together end in time.
        most_s = options.budget_s if options.small else most_s_of(name, options.train_s)
        budget_s = min(most_s, max(LEAST_S, left_s - GRACE_S))
        print(f"--- {name}: at most {budget_s:.0f} s", flush=True)
        started = time.monotonic()
        ended = attended(command(name, budget_s, options), budget_s + GRACE_S)
        record = Record(record.path)
        if ended:
            _note_end(record, name, time.monotonic() - started, ended)
    return record


def most_s_of(name: str, train_s: float) -> float:
    """The wall time that a section may take."""
    return BUDGETS_S[name] + (train_s - TRAIN_S if name == "training" else 0.0)


def _note_end(record: Record, name: str, seconds: float, ended: str) -> None:
    if name not in record.sections:
        record.begin(name, "")
    record.end(name, seconds, ended)
    print(f"--- {name}: {ended}", flush=True)


def command(name: str, budget_s: float, options: argparse.Namespace) -> list[str]:
    """A section's command line."""
    words = [sys.executable, "-m", "jobs.benchmarks.gpu", "--here", "--only", name, "--budget-s", f"{budget_s:.1f}"]
    words += ["--out", str(options.out), "--device", options.device, "--train-s", str(options.train_s)]
    words += ["--small"] if options.small else []
    return words + (["--omniglot", str(options.omniglot)] if options.omniglot else [])


def attended(words: Sequence[str], timeout_s: float, **options: Any) -> str:
    """Run a command to its end, or kill it and what it started; returns what went wrong, "" if nothing did.

    Args:
        words: of the command.
        timeout_s: after which it is killed.
        options: of `subprocess.Popen`, such as where it runs.
    """
    with subprocess.Popen(words, start_new_session=True, **options) as process:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            ended = f"killed after {timeout_s:.0f} s"
        else:
            ended = "" if code == 0 else f"its process ended with {_named(code)}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return ended


def _named(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
