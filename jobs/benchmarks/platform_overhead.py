"""What Ray and a job cost on top of training in process: to the first step, by step, and after the last.

    python -m jobs.benchmarks.platform_overhead STORE [--steps 200] [--race-steps 600] [--repeats 3]
                                                [--submit http://127.0.0.1:8265 --about "a head alone"]
                                                [--out docs]

The same steps of Omniglot's 5-way 1-shot MAML, a thread a worker, by `metaray train --workers 0`, and by `--workers 1`
on a Ray cluster of its own or, where --submit names the dashboard of a cluster on this machine, by `metaray submit
train --workers 1`. Nothing else may use Ray here meanwhile.

The time to the first step and after the last are those of runs that have the machine alone, by when their lines
arrive. The time of a step is compared in a race of two runs, of which only one goes on at a time: every few seconds one
is stopped (SIGSTOP: its Ray processes too, not only the worker) and the other continued. A window of one and the next
of the other make a pair. So what else slows the machine down for longer than that slows both, and the ratio is the
median of many pairs. The record is kept in docs/platform_overhead/, and docs/platform_overhead.md built from all there.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

from metaray.records.journal import read_journal
from metaray.records.provenance import provenance
from metaray.records.result import RESULT, Result
from metaray.records.storage import Storage

JOBS = Path(__file__).resolve().parents[1]
FIRST = re.compile(r"first step after ")
WINDOW_S, SETTLE_S = 4.0, 0.5
HEAD = """# What Ray and a job cost

Made by `jobs/benchmarks/platform_overhead.py`, whose docstring says how, from the records in platform_overhead/.
Medians; all runs of one race end with the same parameters, bit for bit.

| | s to the first step | ms a step | ratio to in process | s after the last step |
|---|---|---|---|---|"""
KINDS = {
    "in process": ("train", "recipe.py:recipe", "--workers", "0"),
    "ray": ("train", "recipe.py:recipe", "--workers", "1"),
    "submit": ("submit", "train", "recipe.py:recipe", "--workers", "1"),
}


class Setting(NamedTuple):
    """What all runs have in common.

    Attributes:
        store: Omniglot's class store.
        steps: of each run.
        submit: the dashboard's URL, if any.
        folder: where runs are kept and commands are given.
    """

    store: Path
    steps: int
    submit: str | None
    folder: Path


def command(kind: str, run: str, setting: Setting) -> list[str]:
    """A kind's command line."""
    settings = [f"source.path={setting.store}", f"num_steps={setting.steps}", f"evaluation.every={setting.steps}"]
    settings += ["evaluation.val_episodes=2", "evaluation.test_episodes=2"]
    words = [*KINDS[kind], *(word for setting in settings for word in ("--set", setting)), "--no-register"]
    words += ["--run", run, "--storage", str(setting.folder / "runs")]
    if kind == "submit":
        assert setting.submit is not None
        words += ["--address", setting.submit, "--follow", "--local-to-head"]
    return [sys.executable, "-m", "metaray", *words]


def alone(kind: str, run: str, setting: Setting) -> dict[str, float]:
    """Seconds to the first step and after the last, of a run that has the machine alone."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command(kind, run, setting),
        cwd=setting.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = [(time.perf_counter() - started, line) for line in process.stdout]
    ended = time.perf_counter() - started
    assert process.wait() == 0, "".join(line for _, line in lines)
    first = next(at for at, line in lines if FIRST.search(line))
    last = next(at for at, line in lines if line.startswith(f"step {setting.steps}/{setting.steps}"))
    return {"first_step_s": first, "after_last_step_s": ended - last}


class Racer:
    """A run that is stopped and continued.

    Args:
        kind: of the run.
        run: its name.
        setting: of all runs.
    """

    def __init__(self, kind: str, run: str, setting: Setting) -> None:
        self.on_ray, self._name = kind != "in process", run
        self._storage = Storage(str(setting.folder / "runs" / run))
        self._log = setting.folder / f"{run}.log"
        with self._log.open("wb") as log:
            self._process = psutil.Popen(
                command(kind, run, setting), cwd=setting.folder, stdout=log, stderr=subprocess.STDOUT
            )

    def await_steps(self) -> None:
        """Wait until it trains."""
        while not self.times():
            assert self.goes_on, self._log.read_text()
            time.sleep(0.2)

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def times(self) -> list[float]:
        """When each step ended that is on record, in `time.time()`."""
        return [entry.time_ms / 1e3 for entry in read_journal(self._storage) if entry.key == "train/loss"]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing of it runs within the block."""
        held = _with_children([self._process, *(_ray_processes() if self.on_ray else ())])
        try:
            _send(held, signal.SIGSTOP)
            yield
        finally:
            _send(held, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """See that it does not outlive the race."""
        _send(_with_children([self._process]), signal.SIGKILL)

    def finish(self) -> str:
        """Let it end; returns the SHA-256 of its parameters."""
        assert self._process.wait() == 0, self._log.read_text()
        return Result.from_json(self._storage.read(RESULT).decode()).parameters_sha256


def _ray_processes() -> list[psutil.Process]:
    """Those of Ray on this machine, by their command lines."""
    found = psutil.process_iter(["cmdline"])
    return [
        p for p in found if p.info["cmdline"] and re.search(r"^ray::|/site-packages/ray/", " ".join(p.info["cmdline"]))
    ]


def _with_children(roots: list[psutil.Process]) -> dict[int, psutil.Process]:
    held = {}
    for root in roots:
        try:
            held |= {p.pid: p for p in (root, *root.children(recursive=True))}
        except psutil.Error:
            continue
    return held


def _send(processes: dict[int, psutil.Process], what: signal.Signals) -> None:
    for process in processes.values():
        try:
            process.send_signal(what)
        except psutil.Error:
            continue


def race(kind: str, number: int, setting: Setting) -> list[tuple[float, float]]:
    """Seconds a step in pairs of windows: in process, and by `kind`."""
    name = f"{setting.folder.name}-race-{number}"
    with ExitStack() as stack:
        other = stack.enter_context(Racer(kind, f"{name}-{kind}", setting))
        other.await_steps()
        with other.stopped():
            plain = stack.enter_context(Racer("in process", f"{name}-plain", setting))
            plain.await_steps()
        windows: list[tuple[Racer, float, float]] = []
        while plain.goes_on and other.goes_on and max(len(plain.times()), len(other.times())) < setting.steps:
            for runs, rests in ((plain, other), (other, plain)):
                with rests.stopped():
                    start = time.time()
                    time.sleep(WINDOW_S)
                    windows.append((runs, start + SETTLE_S, time.time()))
        assert plain.finish() == other.finish(), "the same steps, but other parameters"
    speeds = [_step_s(racer.times(), start, end) for racer, start, end in windows]
    pairs = [(a, b) for a, b in zip(speeds[::2], speeds[1::2], strict=True) if a and b]
    assert len(pairs) > 1, "too short a race for two pairs of windows: raise --race-steps"
    return pairs


def _step_s(times: list[float], start: float, end: float) -> float | None:
    """Mean time of the steps that began and ended within a window; None if there are fewer than three."""
    inside = [at for at in times if start <= at < end]
    return (inside[-1] - inside[0]) / (len(inside) - 1) if len(inside) > 3 else None


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page in Markdown."""
    rows, sources = [], []
    for record in records:
        kind, step, ratio = record["kind"], record["step_s"], record["step_ratio"]
        low, high = ratio["quartiles"]
        told = f"{ratio['median']:.3f} (quartiles {low:.3f} to {high:.3f} of {ratio['pairs']} pairs)"
        for name, compared in (("in process", ""), (kind, told)):
            first, last = record["medians"][name]["first_step_s"], record["medians"][name]["after_last_step_s"]
            rows.append(f"| {name} | {first:.1f} | {1e3 * step[name]:.0f} | {compared} | {last:.1f} |")
        sources.append(
            f"- {kind} ({record['about']}): `{record['command']}`; {record['cores']} cores, torch {record['torch']}, "
            f"commit {record['commit'][:12]}"
        )
    return "\n".join([HEAD, *rows, "", *sources, ""])


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record of one kind."""
    kind = "submit" if arguments.submit else "ray"
    found: dict[str, list[dict[str, float]]] = {"in process": [], kind: []}
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        setting = Setting(arguments.store.absolute(), arguments.steps, arguments.submit, Path(folder))
        _write_recipe(setting.folder)
        for number in range(arguments.repeats):
            for name, runs in found.items():
                runs.append(alone(name, f"{setting.folder.name}-{number}-{name.replace(' ', '-')}", setting))
                print(name, runs[-1], file=sys.stderr, flush=True)
            pairs += race(kind, number, setting._replace(steps=arguments.race_steps))
            print(f"{len(pairs)} pairs, the last {pairs[-1]}", file=sys.stderr, flush=True)
    ratios = [theirs / ours for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    options = f"--steps {arguments.steps} --race-steps {arguments.race_steps} --repeats {arguments.repeats}"
    tags = provenance()
    return {
        "kind": kind,
        "about": arguments.about,
        "repeats": arguments.repeats,
        "medians": {
            name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
        },
        "step_s": {"in process": statistics.median(a for a, _ in pairs), kind: statistics.median(b for _, b in pairs)},
        "step_ratio": {"median": middle, "quartiles": [low, high], "pairs": len(pairs)},
        "pairs_s": pairs,
        "command": f"python -m jobs.benchmarks.platform_overhead omniglot.arrow {options}"
        + (" --submit URL" if arguments.submit else ""),
        "cores": psutil.cpu_count(),
        "torch": tags["torch.version"],
        "commit": tags.get("git.commit", ""),
    }


def main() -> None:
    """Measure, keep the record, and build the page anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="Omniglot's class store")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--race-steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--submit", help="URL of the dashboard of a cluster on this machine")
    parser.add_argument("--about", default="a cluster of its own", help="in words, what the cluster is")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    record = measured(arguments)
    print(json.dumps(record, indent=2))
    folder = arguments.out / "platform_overhead"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{record['kind']}.json").write_text(json.dumps(record, indent=2) + "\n")
    (arguments.out / "platform_overhead.md").write_text(
        page([json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))])
    )


def _write_recipe(folder: Path) -> None:
    (folder / "recipe.py").write_text(
        "from jobs.omniglot import maml_5way_1shot\n\n\ndef recipe():\n    return maml_5way_1shot()\n"
    )
    (folder / "jobs").mkdir()
    (folder / "jobs" / "omniglot.py").write_text((JOBS / "omniglot.py").read_text())


if __name__ == "__main__":
    main()
