"""Each section in a process of its own: what it breaks, fills or hangs in ends with it, and the next one goes on."""

import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from jobs.benchmarks.gpu.record import Record
from jobs.benchmarks.gpu.section import Section, Setting, run_section

GRACE_S = 12.0
"""For the case that a section is in when its time is over; then it is killed."""
LEAST_S = 5.0
STACK_BEFORE_S = 2.0


def run_here(sections: Sequence[Section], setting: Setting, record: Record, budget_s: float) -> None:
    """Run sections in this process, which says where it was if it hangs until it is killed.

    Args:
        sections: to run.
        setting: of all.
        record: that is added to.
        budget_s: for them together; no case is begun after it.
    """
    started = time.monotonic()
    faulthandler.dump_traceback_later(budget_s + GRACE_S - STACK_BEFORE_S)
    try:
        for section in sections:
            run_section(section, setting, record, until=lambda: time.monotonic() - started > budget_s)
    finally:
        faulthandler.cancel_dump_traceback_later()


def supervised(sections: Sequence[Section], options: argparse.Namespace, record: Record) -> Record:
    """Run sections one after the other, each in a process, within their time and that of all; returns the record.

    Args:
        sections: to run.
        options: of the command line, which the processes are given on.
        record: that is added to.
    """
    ends = time.monotonic() + options.budget_s
    for section in sections:
        left_s = ends - time.monotonic()
        if left_s < LEAST_S:
            record.begin(section.name, section.about)
            record.end(section.name, 0.0, "not begun: the time for all was over")
            continue
        # Its grace is part of what is left, so that all together end in time.
        budget_s = min(section.budget_s, max(LEAST_S, left_s - GRACE_S))
        print(f"--- {section.name}: at most {budget_s:.0f} s", flush=True)
        started = time.monotonic()
        ended = attended(command(section.name, budget_s, options), budget_s + GRACE_S)
        record = Record(record.path)
        if record.sections.get(section.name, {}).get("ended") != "whole" or ended:
            _note_end(record, section, time.monotonic() - started, ended or "its process ended early")
    return record


def _note_end(record: Record, section: Section, seconds: float, ended: str) -> None:
    if section.name not in record.sections:
        record.begin(section.name, section.about)
    record.end(section.name, seconds, ended)
    print(f"--- {section.name}: {ended}", flush=True)


def command(name: str, budget_s: float, options: argparse.Namespace) -> list[str]:
    """A section's command line."""
    words = [sys.executable, "-m", "jobs.benchmarks.gpu", "--here", "--only", name, "--budget-s", f"{budget_s:.1f}"]
    words += ["--out", str(options.out), "--device", options.device, "--train-s", str(options.train_s)]
    words += ["--small"] if options.small else []
    return words + (["--omniglot", str(options.omniglot)] if options.omniglot else [])


def attended(words: Sequence[str], timeout_s: float) -> str:
    """Run a command to its end, or kill it and what it started; returns what went wrong, "" if nothing did."""
    with subprocess.Popen(words, start_new_session=True) as process:
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
