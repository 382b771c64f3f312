"""What metaray costs on a CPU, beside other libraries and the machine's own bounds: 15 minutes on 2 quiet cores.

    python -m jobs.benchmarks.cpu [--only SECTION ...] [--again] [--out docs] [--peers .venv-peers] [--jax]
    python -m jobs.benchmarks.cpu --page

Every result goes into OUT/performance/ as soon as it is there, and OUT/performance.md is made anew each time.
A run that was interrupted goes on: what is on record of this very code, machine and settings is not measured again,
unless --again says so. What fails is on record with its traceback, and the next begins; then the exit code is 1.
`make peers` makes the environment of the other libraries; without it, metaray is compared with a loop by hand alone.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from jobs.benchmarks.cpu import bounds, kernels, memories, meta_steps, sampled, whole_runs
from jobs.benchmarks.cpu.cases import FULL, TINY
from jobs.benchmarks.cpu.page import write_page
from jobs.benchmarks.cpu.runs import Job, Records, Setting, run
from jobs.benchmarks.peers.client import Peers

SECTIONS: dict[str, Callable[[Setting], Iterator[Job]]] = {
    bounds.SECTION: bounds.jobs,
    kernels.SECTION: kernels.jobs,
    meta_steps.SECTION: meta_steps.jobs,
    sampled.SECTION: sampled.jobs,
    memories.SECTION: memories.jobs,
    whole_runs.WORKERS: whole_runs.worker_jobs,
    whole_runs.START_UP: whole_runs.start_up_jobs,
}


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--again", action="store_true", help="also measure what is on record")
    parser.add_argument("--turns", type=int, default=9, help="at most, of each contender")
    parser.add_argument("--seconds", type=float, default=25.0, help="for the turns of one case")
    parser.add_argument("--jax", action="store_true", help="time JAX in every case: compiling takes minutes more")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="the environment of `make peers`")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--small", action="store_true", help="tiny networks, to check the script; give --out too")
    parser.add_argument("--page", action="store_true", help="only make the page anew from the records")
    return parser.parse_args(arguments)


def command_of(options: argparse.Namespace) -> str:
    """What to type for it."""
    words = ["python -m jobs.benchmarks.cpu", f"--turns {options.turns}", f"--seconds {options.seconds:g}"]
    return " ".join(words + ["--jax"] * options.jax + ["--small"] * options.small)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    options = parsed(arguments)
    good = True
    if not options.page:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory(prefix="metaray-cpu-") as scratch, Peers(options.peers) as peers:
            size = TINY if options.small else FULL
            setting = Setting(Path(scratch), peers, options.turns, options.seconds, size, options.jax)
            for name, why in peers.absent.items():
                setting.say(f"without {name}: {why}")
            jobs = [job for name in SECTIONS if name in options.only for job in SECTIONS[name](setting)]
            records = Records(options.out / "performance", command_of(options))
            kept = partial(write_page, options.out)
            good = run(jobs, records, again=options.again, say=setting.say, kept=kept)
    print(f"written: {write_page(options.out)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
