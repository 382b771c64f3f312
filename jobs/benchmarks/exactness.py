"""The same bits whatever happens: trains each algorithm with 0 to 4 workers, lets things fail, and compares SHA-256s.

    python -m jobs.benchmarks.exactness [--only maml] [--workers 0 1 2 3 4] [--faults none sampler worker ...]
                                        [--page docs/exactness.md]

Runs short experiments on the embedded glyphs, one a cell: ALGORITHMS x workers x what happens to the run. Prints each
digest, and fails if two differ within an algorithm, or if another seed gives the same one. With --page, the results
are kept beside the page (.json) and the tables in it are written anew from all that is kept.

Check a machine in a minute or two:  python -m jobs.benchmarks.exactness --only maml --workers 0 2 --faults none worker
"""

import argparse
import dataclasses
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.benchmarks.faults import (
    Disturbed,
    Pace,
    Until,
    node_lost,
    sampler_killed,
    shrunk_and_grown,
    worker_frozen,
    worker_killed,
)
from metaray.algorithms import ALGORITHMS
from metaray.data import Glyphs
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.models import Conv4
from metaray.records.checkpoint_files import saved_steps
from metaray.records.environment import environment
from metaray.records.provenance import provenance
from metaray.records.result import read_result
from metaray.records.storage import Storage
from metaray.training.in_process import InProcess
from metaray.training.placement import Placement, Workers

FAULTS = ("none", "sampler", "worker", "frozen", "driver", "node", "elastic")
TITLES = {
    "none": "undisturbed",
    "sampler": "sampler killed",
    "worker": "worker killed",
    "frozen": "worker frozen",
    "driver": "driver killed",
    "node": "node lost",
    "elastic": "2 -> 1 -> 2",
}
PACE_S = 0.25
HANG_TIMEOUT_S = 12.0


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        algorithm: key in ALGORITHMS.
        workers: asked for.
        fault: what happened to it, one of FAULTS.
        seed: of the experiment.
        sha256: of the parameters after the last step.
        recoveries: what happened; seconds until the next step; of these, until new workers had joined (the rest is
            loading the checkpoint and computing a step), where that is known.
        commit: of the code.
        cpu: that computed.
    """

    algorithm: str
    workers: int
    fault: str
    seed: int
    sha256: str
    recoveries: tuple[tuple[str, float, float | None], ...] = ()
    commit: str = ""
    cpu: str = ""


def experiment_of(algorithm: str, seed: int) -> Experiment:
    """Five episodes a step: no number of workers from 2 to 4 divides them, and 5 is no power of two."""
    return Experiment(
        name=f"exactness-{algorithm.replace('_', '-')}",
        source=Glyphs(),
        episodes=EpisodeSpec(ways=5, shots=1, queries=3),
        model=Conv4(downsample="stride"),
        algorithm=ALGORITHMS[algorithm](batch_norm="transductive"),
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine", clip_norm=1.0),
        meta_batch_size=5,
        num_steps=120,
        checkpoint=Checkpoint(every=10),
        evaluation=Evaluation(every=40, val_episodes=10, test_episodes=10),
        seed=seed,
    )


def placement_of(
    workers: str, cpus_per_worker: float, address: str | None = None, *, closely: bool = False
) -> Placement:
    """CPU workers; those that will be frozen are watched closely, the others may be slow."""
    timeout_s = HANG_TIMEOUT_S if closely else 120.0
    return Placement(Workers.parse(workers), 2, cpus_per_worker, "cpu", address, timeout_s)


def on_ray(
    experiment: Experiment, placement: Placement, script: Callable[[Disturbed], Iterator[Until]] | None
) -> tuple[str, Disturbed]:
    """A run on the cluster of this process; the digest, and what happened."""
    from metaray.distributed.cluster import connect
    from metaray.distributed.trainer import OnRay

    connect(placement)
    with tempfile.TemporaryDirectory() as folder:
        flag = Path(folder) / "slow"
        if script is not None:
            flag.touch()
        run = Disturbed(script, flag)
        pace = [Pace(str(flag), PACE_S)]
        storage = Storage(f"{folder}/run")
        OnRay(placement, pace).train(experiment, storage, run)
        digest = read_result(storage).parameters_sha256
    assert run.finished, f"the run ended before the fault was over: {run.notes}"
    return digest, run


def in_process(experiment: Experiment) -> str:
    """An undisturbed run without Ray."""
    with tempfile.TemporaryDirectory() as folder:
        InProcess("cpu").train(experiment, Storage(folder), Disturbed())
        return read_result(Storage(folder)).parameters_sha256


def on_nodes(experiment: Experiment, workers: int, fault: str) -> tuple[str, Disturbed]:
    """A run on a cluster of three nodes, of which one is lost: a head without CPUs, and two that share the workers."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cpus = -(-workers // 2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=cpus)
        second = cluster.add_node(num_cpus=cpus)
        make = node_lost if fault == "node" else shrunk_and_grown
        asked = f"{workers}" if fault == "node" else f"{cpus}:{workers}"
        return on_ray(experiment, placement_of(asked, 1.0, cluster.address), make(cluster, second, cpus))
    finally:
        ray.shutdown()
        cluster.shutdown()


def driver_killed(experiment: Experiment, workers: int) -> tuple[str, float]:
    """SIGKILL of `metaray train` at a checkpoint, and the same command again; the digest, and seconds to a new step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Long enough between checkpoints to be hit: a process that is killed too late would prove nothing.
        (folder / "experiment.json").write_text(experiment.to_json())
        command = [
            sys.executable,
            "-m",
            "metaray",
            "train",
            "experiment.json",
            "--run",
            "it",
            "--no-register",
            "--json",
        ]
        command += ["--workers", str(workers), "--cpus-per-worker", "0.5", "--samplers", "2", "--device", "cpu"]
        storage = Storage(str(folder / "runs" / "it"))
        first = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not saved_steps(storage) and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL, "the run ended before it was killed"
        second = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        found = re.search(r"first step after ([0-9.]+) s", second.stderr)
        assert found and "going on from the checkpoint of step" in second.stderr, second.stderr
        return json.loads(second.stdout)["parameters_sha256"], float(found[1])


SCRIPTS = {"none": None, "sampler": sampler_killed, "worker": worker_killed, "frozen": worker_frozen}


def run_cell(algorithm: str, workers: int, fault: str, seed: int) -> Cell | None:
    """One cell; None where it has no meaning, such as a killed sampler actor without Ray."""
    experiment = experiment_of(algorithm, seed)
    if fault == "driver":
        sha256, recovery_s = driver_killed(experiment, workers)
        what = "driver killed, same command again" + (", no Ray" if workers == 0 else "")
        return Cell(algorithm, workers, fault, seed, sha256, ((what, recovery_s, None),))
    if workers == 0:
        return Cell(algorithm, workers, fault, seed, in_process(experiment)) if fault == "none" else None
    if fault in ("node", "elastic"):
        if workers % 2:
            return None
        sha256, run = on_nodes(experiment, workers, fault)
    else:
        sha256, run = on_ray(experiment, placement_of(str(workers), 0.5, closely=fault == "frozen"), SCRIPTS[fault])
    times = tuple((r.what, r.back_s - r.acted_s, r.began_s - r.acted_s) for r in run.recoveries if r.back_s)
    return Cell(algorithm, workers, fault, seed, sha256, times)


def check(cells: list[Cell]) -> list[str]:
    """What is wrong: digests that differ within an algorithm and seed, or agree between seeds."""
    problems = []
    found: dict[tuple[str, int], set[str]] = {}
    for cell in cells:
        found.setdefault((cell.algorithm, cell.seed), set()).add(cell.sha256)
    for (algorithm, seed), digests in found.items():
        if len(digests) > 1:
            problems.append(f"{algorithm}, seed {seed}: {len(digests)} different digests")
        others = {d for (a, s), ds in found.items() if a == algorithm and s != seed for d in ds}
        if digests & others:
            problems.append(f"{algorithm}: seed {seed} gives the digest of another seed")
    return problems


def table(cells: list[Cell]) -> str:
    """The digests' first digits, by algorithm and workers, a column for each fault."""
    faults = [fault for fault in FAULTS if any(cell.fault == fault for cell in cells)]
    lines = ["| algorithm | seed | workers | " + " | ".join(TITLES[fault] for fault in faults) + " |"]
    lines.append("|" + "---|" * (len(faults) + 3))
    for algorithm, seed, workers in sorted({(c.algorithm, c.seed, c.workers) for c in cells}):
        row = {c.fault: c for c in cells if (c.algorithm, c.seed, c.workers) == (algorithm, seed, workers)}
        digests = [f"`{row[fault].sha256[:12]}`" if fault in row else "" for fault in faults]
        lines.append(f"| {algorithm} | {seed} | {workers} | " + " | ".join(digests) + " |")
    return "\n".join(lines)


def recovery(cells: list[Cell]) -> str:
    """Seconds from a fault to the next step."""
    lines = [
        "| what happened | runs | seconds to the next step, median (range) | until new workers had joined, median |"
    ]
    lines.append("|---|---|---|---|")
    found: dict[str, list[tuple[float, float | None]]] = {}
    for cell in sorted(cells, key=lambda cell: FAULTS.index(cell.fault)):
        for what, to_step_s, to_workers_s in cell.recoveries:
            found.setdefault(what, []).append((to_step_s, to_workers_s))
    for what, times in found.items():
        steps = [to_step_s for to_step_s, _ in times]
        workers = [to_workers_s for _, to_workers_s in times if to_workers_s is not None]
        until = f"{statistics.median(workers):.1f}" if workers else "-"
        spread = f"{statistics.median(steps):.1f} ({min(steps):.1f} to {max(steps):.1f})"
        lines.append(f"| {what} | {len(times)} | {spread} | {until} |")
    return "\n".join(lines)


def keep(page: Path, cells: list[Cell]) -> list[Cell]:
    """Merge cells with those kept beside the page, and write its tables anew; returns all."""
    store = page.with_suffix(".json")
    kept = json.loads(store.read_text())["cells"] if store.exists() else []
    merged = {(c.algorithm, c.workers, c.fault, c.seed): c for c in [*(Cell(**k) for k in kept), *cells]}
    everything = [merged[key] for key in sorted(merged)]
    write(store, json.dumps({"cells": [asdict(c) for c in everything]}, indent=1) + "\n")
    text = page.read_text()
    for name, content in (("digests", table(everything)), ("recovery", recovery(everything))):
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert start and end, f"{page} has no place for its {name}"
        text = f"{before}{start}\n{content}\n\n{end}{after}"
    write(page, text)
    return everything


def write(path: Path, text: str) -> None:
    """Beside, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


def trainable(algorithm: str) -> bool:
    """Whether it has meta-parameters; nearest neighbour has none, and so no digest."""
    import torch

    from metaray.training.outer_loop import initial_state

    return bool(initial_state(experiment_of(algorithm, 0), torch.device("cpu")).meta)


def main() -> int:
    """Run the cells asked for; 1 if something differs that should not, or agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in ALGORITHMS if trainable(name)]
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    cells: list[Cell] = []
    where: dict[str, Any] = {
        "commit": provenance().get("git.commit", "unknown"),
        "cpu": f"{os.cpu_count()} x {environment()['cpu']}",
    }
    for fault in options.faults:
        for algorithm in options.only:
            for workers in options.workers:
                started = time.perf_counter()
                cell = run_cell(algorithm, workers, fault, options.seed)
                if cell is None:
                    continue
                cell = dataclasses.replace(cell, **where)
                cells.append(cell)
                took = f"{time.perf_counter() - started:.0f} s"
                back = "".join(f", back after {to_step_s:.1f} s" for _, to_step_s, _ in cell.recoveries)
                print(f"{algorithm}, {workers} workers, {TITLES[fault]}: {cell.sha256[:16]} ({took}{back})", flush=True)
                if options.page:
                    keep(options.page, [cell])
    for algorithm in options.only:
        seed = options.seed + 1
        cells.append(Cell(algorithm, 0, "none", seed, in_process(experiment_of(algorithm, seed)), **where))
    problems = check(keep(options.page, cells[-len(options.only) :]) if options.page else cells)
    print("\n".join(problems) or f"{len(cells)} runs: one digest an algorithm, and another for another seed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
