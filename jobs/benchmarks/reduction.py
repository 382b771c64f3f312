"""What exactness costs: the exact outer gradient against plain all-reduce.

    python -m jobs.benchmarks.reduction [--parameters 112000 10000000] [--workers 2 4] [--repeats 31]
                                        [--recipe jobs/omniglot.py:maml_5way_1shot] [--set source.path=FILE]

Needs neither Ray nor MLflow: workers are processes on this machine, joined by gloo. First the two collectives alone, on
buffers of so many parameters, alternately; then, with --recipe, whole outer steps of two workers, exact and fast
alternately. Bytes are what the rank with the most sends, by the algorithms' own count.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from jobs.benchmarks.ranks import part
from metaray.config import replace
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import chunks_of, sample_meta_batch, share_of
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.experiment.recipes import load_recipe
from metaray.training.device import set_execution
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.reduction import GroupReducer, TreeSum, spans

CHUNKS = 16
WARM_UP = 3


def join(rank: int, world_size: int, folder: str) -> GroupReducer:
    """Make this process a rank."""
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    return GroupReducer()


def tree_of(leaf: Tensor, mine: range) -> TreeSum:
    """A rank's nodes, all with the same buffer's copies."""
    tree = TreeSum()
    for index in mine:
        tree.push(0, index, leaf.clone())
    return tree


def time_collectives(rank: int, world_size: int, folder: str, sizes: list[int], repeats: int) -> None:
    """One rank: seconds a call, by size and reduction; rank 0 writes them down."""
    reducer = join(rank, world_size, folder)
    set_execution(Experiment.from_json((Path(folder) / "experiment.json").read_text()), torch.device("cpu"))
    mine = chunks_of(CHUNKS, rank, world_size)
    found: dict[str, dict[str, list[float]]] = {}
    for size in sizes:
        times = found[str(size)] = {"exact": [], "fast": []}
        leaf = torch.randn(size)
        for repeat in range(repeats + WARM_UP):
            for name, seconds in times.items():
                nodes, buffer = tree_of(leaf, mine).nodes, leaf.clone()
                dist.barrier()
                started = time.perf_counter()
                if name == "exact":
                    reducer.join(nodes, CHUNKS)
                else:
                    reducer.sum_(buffer)
                if repeat >= WARM_UP:
                    seconds.append(time.perf_counter() - started)
    if rank == 0:
        (Path(folder) / "times.json").write_text(json.dumps(found))
    part()


def bytes_sent(size: int, world_size: int, count: int = CHUNKS) -> dict[str, int]:
    """By the rank that sends most."""
    width = -(-size // world_size)
    nodes = max(len(spans(chunks_of(count, rank, world_size))) for rank in range(world_size))
    others = 4 * (world_size - 1)
    return {"exact": others * width * (nodes + 1), "fast": others * width * 2}


def arrivals(experiment: Experiment, rank: int, world_size: int) -> Iterator[Arrival]:
    """A rank's share of each step, sampled as it goes (outside the steps' own time)."""
    for step in range(experiment.num_steps):
        share = share_of(step, experiment.meta_batch_size, rank, world_size)
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, share)
        yield Arrival(step, batch, 0.0)


def time_steps(rank: int, world_size: int, folder: str, rounds: int) -> None:
    """One rank: seconds an outer step, exact and fast, in alternating rounds."""
    reducer = join(rank, world_size, folder)
    base = Experiment.from_json((Path(folder) / "experiment.json").read_text())
    device = torch.device("cpu")
    set_execution(base, device)
    given = list(arrivals(base, rank, world_size))
    times: dict[str, list[float]] = {"exact": [], "fast": []}
    for number in range(rounds + 1):
        for name, seconds in times.items():
            experiment = replace(base, reduction=name)
            dist.barrier()
            steps = outer_loop(experiment, initial_state(experiment, device), given, reducer, device)
            durations = [step.duration_s for step in steps]
            if number:  # the first round warms up
                seconds.append(statistics.median(durations))
    if rank == 0:
        (Path(folder) / "times.json").write_text(json.dumps(times))
    part()


def measured(worker: Any, world_size: int, experiment: Experiment, *arguments: Any) -> Any:
    """Spawn the ranks, and read what rank 0 wrote."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "experiment.json").write_text(experiment.to_json())
        spawn(worker, args=(world_size, folder, *arguments), nprocs=world_size)  # type: ignore[no-untyped-call]
        return json.loads((Path(folder) / "times.json").read_text())


def main() -> None:
    """Print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="+", default=[112_000, 10_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--recipe", default="jobs/glyphs.py:demo")
    parser.add_argument("--set", action="append", dest="settings", default=[])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    experiment = override(load_recipe(options.recipe), [*options.settings, f"num_steps={options.steps}"])
    result: dict[str, Any] = {"cpus": os.cpu_count(), "repeats": options.repeats, "collectives": []}
    extra_ms = 0.0
    for world_size in options.workers:
        found = measured(time_collectives, world_size, experiment, options.parameters, options.repeats)
        for size in options.parameters:
            medians = {name: 1000 * statistics.median(seconds) for name, seconds in found[str(size)].items()}
            row = {"workers": world_size, "parameters": size, "bytes_sent": bytes_sent(size, world_size)}
            row |= {f"{name}_ms": round(ms, 2) for name, ms in medians.items()}
            result["collectives"].append(row | {"ratio": round(medians["exact"] / medians["fast"], 2)})
            if (world_size, size) == (options.workers[0], options.parameters[0]):
                extra_ms = medians["exact"] - medians["fast"]
    steps = measured(time_steps, 2, experiment, options.rounds)
    step_ms = {name: 1000 * statistics.median(seconds) for name, seconds in steps.items()}
    result["outer_step"] = {
        "recipe": options.recipe,
        "parameters": sum(t.numel() for t in initial_state(experiment, torch.device("cpu")).meta.values()),
        "workers": 2,
        "rounds_of_steps": [options.rounds, options.steps],
        **{f"{name}_ms": round(ms, 2) for name, ms in step_ms.items()},
        "ratio": round(step_ms["exact"] / step_ms["fast"], 4),
        "extra_of_the_first_collective_as_share_of_a_step": round(extra_ms / step_ms["fast"], 4),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
