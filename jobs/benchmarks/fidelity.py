"""Every algorithm on Omniglot, under one protocol and one budget, next to what its paper reports.

    python -m jobs.benchmarks.fidelity STORE [--algorithms maml protonet ...] [--shots 1 5] [--minutes 6] [--workers 2]
                                       [--published CSV] [--out docs]

Protocol: 5-way, Vinyals split with rotations, Conv4, as many queries a class as shots (as Finn et al. have it; it
matters under transductive batch norm alone), transductive batch norm, the step that meta-val chose, 1000 meta-test
episodes. The budget is `--minutes` times `--workers` of one processor: the number of outer steps that fit is measured
before each run in processor time, so that other processes do not count; `--steps` replays a run exactly, on any number
of workers. With --workers 0 (and twice the minutes for the budget of two) runs need no Ray, and two can go on at once.

Each run is kept in docs/fidelity/ (one on a GPU beside that on a CPU), and docs/fidelity.md is built from all there.
"""

import argparse
import csv
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from jobs.benchmarks.fidelity_page import on_cpu, page
from jobs.family import omniglot
from metaray.algorithms import ALGORITHMS
from metaray.config import replace
from metaray.episodes.prefetch import threaded_stream
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.experiment.experiment import Experiment
from metaray.records.events import Event, Listener
from metaray.records.provenance import provenance
from metaray.records.result import Result, read_result
from metaray.records.storage import Storage
from metaray.training.device import choose_device, set_execution
from metaray.training.in_process import InProcess
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.placement import Placement, Workers
from metaray.training.reduction import LocalReducer

WARM_UP, TIMED_S = 3, 8.0
CURVE_POINTS = 8

TRAINED = [kind for kind in ALGORITHMS if kind != "nearest_neighbor"]  # every run reports that
PUBLISHED = {
    "maml": "MAML",
    "fomaml": "FOMAML",
    "reptile": "Reptile+transduction",
    "anil": "ANIL",
    "meta_sgd": "Meta-SGD",
    "mamlpp": "MAML++",
    "imaml": "iMAML GD",
    "protonet": "ProtoNet",
    "r2d2": "R2-D2",
    "metaoptnet_svm": "MetaOptNet-SVM",
    "metaoptnet_ridge": "MetaOptNet-RR",
}
"""Rows (of kind "paper") of the table of published accuracies; iMAML is compared with its gradient descent variant."""


@dataclass(frozen=True)
class Cost:
    """What a step takes, on one processor or GPU.

    Attributes:
        step_s: processor time of an outer step (wall time on a GPU).
        peak_bytes: of the process that took them, or on the GPU.
    """

    step_s: float
    peak_bytes: int


class Curve(Listener):
    """Remembers meta-val accuracy by step, and says now and then where the run is."""

    def __init__(self, name: str) -> None:
        self.name, self._told_s = name, time.time()
        self.points: list[tuple[int, float]] = []

    def on_event(self, event: Event) -> None:
        """Keep evaluations."""
        if event.kind == "evaluation":
            self.points.append((event.step, event.values["val/accuracy"]))
            print(f"{self.name}: step {event.step}: meta-val {event.values['val/accuracy']:.4f}", flush=True)

    def close(self) -> None:
        """Nothing to do."""


def measure(experiment: Experiment, device: torch.device) -> Cost:
    """Take a few outer steps in this process."""
    set_execution(experiment, device)
    state, size = initial_state(experiment, device), experiment.meta_batch_size
    stream = threaded_stream(
        lambda step: sample_meta_batch(
            experiment.source, experiment.episodes, "meta-train", experiment.seed, share_of(step, size)
        ),
        start=0,
        stop=experiment.num_steps,
    )
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    steps = outer_loop(experiment, state, stream, LocalReducer(), device)
    for _ in islice(steps, WARM_UP):
        pass
    started, count = clock(), 0
    for _ in steps:
        count += 1
        if clock() - started > TIMED_S:
            break
    step_s = (clock() - started) / count
    steps.close()  # type: ignore[attr-defined]
    if device.type == "cuda":
        return Cost(step_s, torch.cuda.max_memory_allocated())
    return Cost(step_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def planned(experiment: Experiment, steps: int) -> Experiment:
    """The experiment with so many steps, judged at even distances."""
    evaluation = replace(experiment.evaluation, every=max(1, -(-steps // CURVE_POINTS)))
    return replace(experiment, num_steps=steps, evaluation=evaluation)


def train(experiment: Experiment, storage: Path, workers: int, device: str, curve: Curve) -> Result:
    """Run it, in process or on Ray."""
    place = Storage(str(storage))
    if workers == 0:
        InProcess(device).train(experiment, place, curve)
        return read_result(place)
    from metaray.distributed.cluster import connect
    from metaray.distributed.trainer import OnRay

    placement = Placement(workers=Workers(workers, workers), device=device)
    connect(placement)
    OnRay(placement).train(experiment, place, curve)
    return read_result(place)


def published(table: Path | None, kind: str, shots: int) -> dict[str, Any] | None:
    """The paper's number for 5 ways, in percent, with its source; None where the table has none."""
    if table is None:
        return None
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "paper" and row["method"] == PUBLISHED.get(kind):
                found = re.match(r"[0-9.]+(±[0-9.]+)?", row[f"omniglot_5w{shots}s"])
                return {"value": found[0], "source": row["source"]} if found else None
    return None


def run_one(options: argparse.Namespace, kind: str, shots: int) -> dict[str, Any]:
    """Measure, train, judge: the record of one algorithm."""
    tags = provenance(argv=[])  # of the code that runs, whatever is committed meanwhile
    # Of no steps, the share that is annealed (the order of a gradient, say) is none: as most of a run is.
    base = omniglot(kind, shots, store=options.store, seed=options.seed, num_steps=0)
    device = choose_device(options.device)
    cost = measure(planned(base, 10**6), device)
    steps = options.steps or max(CURVE_POINTS, int(options.minutes * 60 * max(1, options.workers) / cost.step_s))
    experiment = planned(omniglot(kind, shots, store=options.store, seed=options.seed, num_steps=steps), steps)
    curve = Curve(f"{kind} {shots}-shot")
    print(f"{curve.name}: {steps} steps of {cost.step_s:.3f} s", flush=True)
    started = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        result = train(experiment, Path(scratch), options.workers, options.device, curve)
    episodes = steps * experiment.meta_batch_size
    on = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU {tags['cpu.capability']}"
    return {
        "algorithm": kind,
        "shots": shots,
        "meta_test": result.meta_test._asdict(),
        "before_adaptation": result.before_adaptation and result.before_adaptation._asdict(),
        "before_training": result.before_training._asdict(),
        "nearest_neighbor": result.nearest_neighbor and result.nearest_neighbor._asdict(),
        "protocol": result.protocol,
        "transductive": experiment.algorithm.batch_norm == "transductive",
        "best_step": result.best_step,
        "curve": curve.points,
        "paper": published(options.published, kind, shots),
        "episodes": episodes,
        "core_minutes": steps * cost.step_s / 60,
        "s_per_1000_episodes": 1000 * cost.step_s / experiment.meta_batch_size,
        "peak_bytes": cost.peak_bytes,
        "wall_s": time.time() - started,
        "device": on,
        "workers": options.workers,
        "seed": options.seed,
        "commit": tags.get("git.commit", "unknown"),
        "dirty": tags.get("git.dirty", "unknown"),
        "torch": tags["torch.version"],
        "fingerprint": experiment.source.fingerprint,
        "parameters_sha256": result.parameters_sha256,
        "command": f"python -m jobs.benchmarks.fidelity {Path(options.store).name} --algorithms {kind} "
        f"--shots {shots} --steps {steps} --seed {options.seed}",
        "experiment": experiment.model_dump(mode="json", exclude={"source"}),
    }


def main() -> None:
    """Run what is asked for, each in a process of its own, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="what `metaray data import omniglot` wrote")
    parser.add_argument("--algorithms", nargs="*", default=TRAINED, choices=TRAINED)
    parser.add_argument("--shots", nargs="*", type=int, default=[5, 1])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--published", type=Path, help="CSV of published accuracies")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kept = options.out / "fidelity"
    kept.mkdir(parents=True, exist_ok=True)
    todo = [(kind, shots) for shots in options.shots for kind in options.algorithms]
    for kind, shots in todo:
        if options.inside:
            record = run_one(options, kind, shots)
            written = kept / f"{kind}-{shots}shot{'' if on_cpu(record) else '-gpu'}.json.part"
            written.write_text(json.dumps(record, indent=1) + "\n")
            written.replace(written.with_suffix(""))
            continue
        # Peak memory belongs to a process.
        command = [sys.executable, "-m", "jobs.benchmarks.fidelity", "--inside", *sys.argv[1:]]
        subprocess.run([*command, "--algorithms", kind, "--shots", str(shots)], check=True)
    records = [json.loads(path.read_text()) for path in sorted(kept.glob("*shot*.json"))]
    page(records, options.out)


if __name__ == "__main__":
    main()
