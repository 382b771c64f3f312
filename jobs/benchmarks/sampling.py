"""Episodes a second in one process: metaray beside plain numpy and a stand-in for learn2learn's fused taskset.

    python -m jobs.benchmarks.sampling [--omniglot omniglot.arrow] [--turns 7] [--seconds 0.5] [--actors 1 2]

They take turns on the same images, one thread each; medians and quartiles are over the turns, of processor time, which
other processes disturb little, and of wall time. `metaray` samples meta-batches of 32 and of 4 episodes, `one by one`
the same episodes alone, as `sample_task` defines them. `numpy` is a bound: all images, turned ones too, in memory,
examples drawn by one generator for the whole meta-batch, one gather; its episodes are no pure function of an index.
Tables of groups and functions are measured alone: nobody else draws such tasks from a file.
With --actors, meta-batches are also streamed through so many sampler actors of a local Ray.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from jobs.benchmarks.fused_taskset import FusedTaskset
from metaray.data import ClassStore, FunctionFamily, GroupTable, Source
from metaray.data.draws import Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import write_store
from metaray.data.tables.importing import import_table
from metaray.episodes.episode import EpisodeSpec, stack
from metaray.episodes.sampler import sample_episode, sample_meta_batch, share_of

META_BATCH = 32
PER_CLASS = 20
FIVE_WAYS, TWENTY_WAYS = (EpisodeSpec(ways=n, shots=k, queries=15) for n, k in ((5, 1), (20, 5)))


class Case(NamedTuple):
    """A source, and which episodes of it."""

    source: Source
    spec: EpisodeSpec


class Contender(NamedTuple):
    """Samples so many episodes at a call."""

    sample: Callable[[], object]
    episodes: int


def synthetic(folder: Path, classes: int, side: int) -> ClassStore:
    """So many classes of 20 square images of noise."""
    images = np.random.default_rng(0).integers(0, 256, (classes * PER_CLASS, 1, side, side), dtype=np.uint8)
    path = folder / f"{classes}.arrow"
    write_store(
        path,
        examples=images,
        counts=[PER_CLASS] * classes,
        class_names=[f"class{i}" for i in range(classes)],
        schemes={"default": {"meta-train": range(classes)}},
        preprocessing=ImagePreprocessing(height=side, width=side),
        origin={},
    )
    return ClassStore(path=str(path))


def table(folder: Path, groups: int, *, binary: bool) -> GroupTable:
    """So many groups of 40 to 200 rows of 16 numbers of noise."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(40, 201, groups)
    ids = np.arange(groups).repeat(sizes)
    x = generator.standard_normal((len(ids), 16)).round(3)
    y = np.arange(len(ids)) % 2 if binary else x.sum(axis=1).round(3)
    columns = {"group": ids, **{f"x{place}": column for place, column in enumerate(x.T)}, "y": y}
    raw, path = folder / f"{binary}.parquet", folder / f"{binary}.arrow"
    pq.write_table(pa.table(columns), raw)
    splits: dict[Split, list[str]] = {"meta-train": [str(group) for group in range(groups)]}
    import_table(raw, path, tasks=["group"], target="y", binary=binary, splits=splits)
    return GroupTable(path=str(path), targets="binary" if binary else "regression")


def cases(folder: Path, omniglot: str | None) -> Iterator[tuple[str, Case]]:
    """By name. 100,000 classes have 8x8 images: at 28x28 they would be 1.6 GB."""
    if omniglot is not None:
        turned = ClassStore(path=omniglot, split="vinyals", rotations=True)
        upright = ClassStore(path=omniglot, split="vinyals")
        yield "Omniglot with rotations, 5-way 1-shot", Case(turned, FIVE_WAYS)
        yield "Omniglot, 5-way 1-shot", Case(upright, FIVE_WAYS)
        yield "Omniglot with rotations, 20-way 5-shot", Case(turned, TWENTY_WAYS)
    yield "1,000 classes, 28x28, 5-way 1-shot", Case(synthetic(folder, 1000, 28), FIVE_WAYS)
    yield "100,000 classes, 8x8, 5-way 1-shot", Case(synthetic(folder, 100_000, 8), FIVE_WAYS)
    values, labels = (table(folder, 300, binary=binary) for binary in (False, True))
    yield "300 groups of rows, 10 and 15", Case(values, EpisodeSpec(shots=10, queries=15))
    yield "300 groups of rows, 10 and the rest", Case(values, EpisodeSpec(shots=10, queries="rest"))
    yield "300 groups of labels, 5 and 8 of each class", Case(labels, EpisodeSpec(shots=5, queries=8))
    yield "sinusoids, 10 and 15", Case(FunctionFamily(), EpisodeSpec(shots=10, queries=15))


def meta_batches(case: Case, size: int) -> Contender:
    """metaray: each call samples the next meta-batch."""
    steps = count()

    def sample() -> object:
        return sample_meta_batch(case.source, case.spec, "meta-train", 0, share_of(next(steps), size))

    return Contender(sample, size)


def one_by_one(case: Case) -> Contender:
    """The same episodes, each alone, then stacked."""
    steps = count()

    def sample() -> object:
        indices = share_of(next(steps), META_BATCH)
        return stack([sample_episode(case.source, case.spec, "meta-train", 0, index) for index in indices])

    return Contender(sample, META_BATCH)


def images_of(case: Case) -> tuple[NDArray[Any], int]:
    """The images of meta-train [classes, 20, *feature], and by how many turns their classes count."""
    source = case.source
    assert isinstance(source, ClassStore), source
    ids = source.class_ids("meta-train")[:: 4 if source.rotations else 1]
    return np.stack([source.examples(class_id)[:PER_CLASS] for class_id in ids.tolist()]), 4 if source.rotations else 1


def plain_numpy(case: Case) -> Contender:
    """The bound."""
    images, turns = images_of(case)
    images = np.concatenate([np.rot90(images, turn, axes=(-2, -1)) for turn in range(turns)])
    flat, (ways, shots, queries) = images.reshape(-1, *images.shape[2:]), case.spec.largest
    assert queries is not None
    draws, per_class = np.random.default_rng(0), shots + queries

    def sample() -> object:
        chosen = np.stack([draws.choice(len(images), ways, replace=False) for _ in range(META_BATCH)])
        drawn = draws.random((META_BATCH, ways, PER_CLASS)).argsort(axis=-1)[..., :per_class]
        rows = chosen[..., None] * PER_CLASS + drawn
        both = rows[..., :shots], rows[..., shots:]
        sides = [flat[places.reshape(META_BATCH, -1)] for places in both]
        labels = [np.tile(np.arange(ways).repeat(count), (META_BATCH, 1)) for count in (shots, queries)]
        return sides, labels

    return Contender(sample, META_BATCH)


def fused(case: Case) -> Contender:
    """The stand-in."""
    images, turns = images_of(case)
    labels = np.arange(len(images)).repeat(PER_CLASS)
    ways, shots, queries = case.spec.largest
    assert queries is not None
    flat = images.reshape(-1, *images.shape[2:])
    taskset = FusedTaskset(flat, labels, ways=ways, per_class=shots + queries, rotations=turns > 1)
    return Contender(taskset.sample, 1)


OURS: dict[str, Callable[[Case], Contender]] = {
    "metaray": partial(meta_batches, size=META_BATCH),
    "metaray, meta-batches of 4": partial(meta_batches, size=4),
    "metaray, one by one": one_by_one,
}
CONTENDERS: dict[str, Callable[[Case], Contender]] = OURS | {
    "numpy, one gather (a bound)": plain_numpy,
    "stand-in for learn2learn's fused taskset": fused,
}


def turn(contender: Contender, seconds: float) -> tuple[float, float]:
    """Microseconds an episode, of processor time and of wall time."""
    episodes, cpu, wall = 0, time.process_time(), time.perf_counter()
    while time.process_time() - cpu < seconds:
        contender.sample()
        episodes += contender.episodes
    return 1e6 * (time.process_time() - cpu) / episodes, 1e6 * (time.perf_counter() - wall) / episodes


def summary(turns: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians and quartiles."""
    low, middle, high = np.percentile(turns, [25, 50, 75], axis=0)
    return {
        "cpu_us_an_episode": [round(one[0], 1) for one in (low, middle, high)],
        "wall_us_an_episode": [round(one[1], 1) for one in (low, middle, high)],
        "episodes_a_cpu_second": round(1e6 / middle[0]),
    }


def measured(case: Case, turns: int, seconds: float) -> dict[str, Any]:
    """All contenders, in turn; the first round warms up."""
    chosen = CONTENDERS if isinstance(case.source, ClassStore) else OURS
    contenders = {name: make(case) for name, make in chosen.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for repeat in range(turns + 1):
        for name, contender in contenders.items():
            taken = turn(contender, seconds)
            if repeat:
                found[name].append(taken)
    return {name: summary(times) for name, times in found.items()}


def streamed(case: Case, actors: int, steps: int = 300) -> dict[str, Any]:
    """Through sampler actors to one consumer that does nothing else: wall time, first round left out."""
    from metaray.distributed.cluster import join_cluster
    from metaray.distributed.samplers import actor_stream, start_samplers

    join_cluster(None)
    samplers = start_samplers(case.source, case.spec, 0, count=actors)
    share = partial(share_of, meta_batch_size=META_BATCH)
    rates = []
    for _ in range(4):
        started = time.perf_counter()
        episodes = sum(len(arrival.batch) for arrival in actor_stream(samplers, share, start=0, stop=steps))
        rates.append(episodes / (time.perf_counter() - started))
    return {"episodes_a_second": [round(rate) for rate in sorted(rates[1:])]}


def main() -> None:
    """Print a line of JSON a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omniglot", help="class store of `metaray data import omniglot`")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of processor time, a turn")
    parser.add_argument("--actors", type=int, nargs="*", default=[], help="also stream through so many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({"numpy": np.__version__, "meta_batch": META_BATCH, "turns": options.turns}))
    with tempfile.TemporaryDirectory() as folder:
        known = dict(cases(Path(folder), options.omniglot))
        for name, case in known.items():
            print(json.dumps({name: measured(case, options.turns, options.seconds)}), flush=True)
        name, case = next(iter(known.items()))
        for actors in options.actors:
            print(json.dumps({f"{name}, through {actors} actors": streamed(case, actors)}), flush=True)


if __name__ == "__main__":
    main()
