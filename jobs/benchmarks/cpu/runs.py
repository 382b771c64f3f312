"""Jobs, and their records: one JSON file each, so that an interrupted run goes on where it was."""

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jobs.benchmarks.cpu.cases import FULL, SEED, Size
from jobs.benchmarks.cpu.turns import rounded
from jobs.benchmarks.gpu.machine import machine
from jobs.benchmarks.gpu.page import slug
from jobs.benchmarks.gpu.section import Skipped
from jobs.benchmarks.peers.client import Peers
from jobs.benchmarks.trials import CPU
from metaray.records.environment import environment
from metaray.records.provenance import git_state

ROOT = Path(__file__).resolve().parents[3]
CODE = ("platform", "jobs")


class Setting(NamedTuple):
    """What all jobs have in common.

    Attributes:
        scratch: a folder for files that nobody needs afterwards.
        peers: the other libraries.
        turns: at most, of each contender.
        seconds: for the turns of one job.
        size: of networks and images.
        jax: whether JAX is timed everywhere.
        say: is told how it goes.
    """

    scratch: Path
    peers: Peers
    turns: int = 9
    seconds: float = 30.0
    size: Size = FULL
    jax: bool = False
    say: Callable[[str], None] = lambda text: print(text, flush=True)


class Job(NamedTuple):
    """One thing to measure.

    Attributes:
        section: that it belongs to.
        name: in tables; two jobs have different ones.
        run: finds it out; what it returns is JSON.
        settings: what its result depends on, besides the code.
    """

    section: str
    name: str
    run: Callable[[], dict[str, Any]]
    settings: dict[str, Any]


class Records:
    """A folder of records.

    Args:
        folder: of them.
        command: that makes them.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self._folder, self._code = folder, code_digest()
        state = git_state(ROOT)
        self._made = {
            "command": command,
            "commit": state.get("git.commit", "unknown"),
            "code": self._code,
            "seed": SEED,
            "machine": machine(CPU) | {"instructions": environment()["cpu_instructions"]},
        }

    def path(self, job: Job) -> Path:
        """Where a job's record is, or will be."""
        return self._folder / f"{slug(f'{job.section} {job.name}')}.json"

    def has(self, job: Job) -> bool:
        """Whether the job's record is there, of this code on this machine, with these settings, and nothing failed."""
        path = self.path(job)
        if not path.exists():
            return False
        record = json.loads(path.read_text())
        made = record["made"]
        same = (made["code"], made["machine"]) == (self._code, self._made["machine"])
        return same and record["settings"] == _as_json(job.settings) and "failed" not in record

    def keep(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        """Write its record: beside, then renamed."""
        told = {"section": job.section, "name": job.name, "settings": job.settings}
        made = {**self._made, "ended": time.strftime("%Y-%m-%d %H:%M:%S %Z"), "seconds": seconds}
        text = json.dumps(rounded(told | result | {"made": made}), indent=1) + "\n"
        path = self.path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".json.part")
        beside.write_text(text)
        beside.replace(path)


def _as_json(tree: Any) -> Any:
    return json.loads(json.dumps(rounded(tree)))


def code_digest(root: Path = ROOT) -> str:
    """Of all modules that a figure may depend on, whether they are committed or not."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def run(
    jobs: Iterable[Job],
    records: Records,
    *,
    again: bool,
    say: Callable[[str], None],
    kept: Callable[[], object] = lambda: None,
) -> bool:
    """Run what is not on record yet, and put each on record; returns whether nothing failed.

    Args:
        jobs: in their order.
        records: that are added to.
        again: run them all.
        say: is told of every job.
        kept: is called after every record, so that what is made of them is never behind.
    """
    good = True
    todo = list(jobs)
    for number, job in enumerate(todo, 1):
        title = f"[{number}/{len(todo)}] {job.section}: {job.name}"
        if not again and records.has(job):
            say(f"{title}: on record already")
            continue
        say(f"{title} ...")
        started = time.perf_counter()
        result = outcome_of(job)
        records.keep(job, result, time.perf_counter() - started)
        kept()
        said = result.get("failed") or result.get("skipped") or "done"
        say(f"{title}: {said.strip().splitlines()[-1]} [{time.perf_counter() - started:.0f} s]")
        good = good and "failed" not in result
    return good


def outcome_of(job: Job) -> dict[str, Any]:
    """What a job found ("found"), or why there is nothing ("skipped", "failed"): no exception escapes."""
    try:
        return {"found": job.run()}
    except Skipped as skipped:
        return {"skipped": str(skipped)}
    except Exception:  # noqa: BLE001 - the next job may still tell something; the traceback is on record
        return {"failed": traceback.format_exc()}
