"""Train an embedding on a store's meta-train without its labels, and write a store of its vectors.

    python -m jobs.benchmarks.unsupervised.embeddings omniglot.arrow --kind contrastive --out vectors.arrow

One thread; the budget is counted in processor time, and `--steps` repeats a run exactly. Beside the file of vectors one
of JSON says what was made, and how well class means of the vectors do on meta-val, by which settings may be chosen.
"""

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.benchmarks.unsupervised.networks import EMBEDDINGS, SIZE, Embedding
from metaray.algorithms.algorithm import start
from metaray.algorithms.class_means import ClassMeans
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.data import ClassStore
from metaray.data.draws import Split
from metaray.data.partitions import STORE, rows_of
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.store_file import StoreFile, write_store
from metaray.data.verified import open_store
from metaray.episodes.episode import EpisodeSpec
from metaray.models.comparison import Compared
from metaray.records.estimate import Estimate
from metaray.training.evaluation import Judge, evaluate

LEARNING_RATE = 2e-3
WARM_UP, TOLD_EVERY = 3, 100
DEVICE = torch.device("cpu")


def images_of(file: StoreFile, rows: np.ndarray) -> Tensor:
    """[n, 1, 28, 28] in 0 .. 1."""
    return torch.from_numpy(np.ascontiguousarray(file.examples[rows])).float() / 255


def trained(kind: str, images: Tensor, minutes: float, steps: int | None, seed: int) -> tuple[Embedding, int]:
    """A network, and the steps that it took; without `steps` as many as fit a budget, by the first ones' time."""
    torch.manual_seed(seed)
    network, generator = EMBEDDINGS[kind](), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    place, began, order = 0, process_time(), torch.empty(0, dtype=torch.int64)
    while steps is None or place < steps:
        if place == WARM_UP:
            began = process_time()
        if steps is None and place == 4 * WARM_UP:
            steps = int(minutes * 60 * (place - WARM_UP) / (process_time() - began))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 if steps is None else max(0.0, 1 - place / steps))
        if len(order) < network.batch:
            order = torch.randperm(len(images), generator=generator)
        batch, order = order[: network.batch], order[network.batch :]
        loss = network.loss(images[batch], generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        place += 1
        if place % TOLD_EVERY == 0:
            print(f"{kind}: step {place} of {steps}: loss {loss.item():.4f}", flush=True)
    return network.eval(), place


def write_vectors(network: Embedding, file: StoreFile, out: Path, kind: str) -> None:
    """The vectors of all examples, of length 1, in a store with the same classes and splits."""
    with torch.no_grad():
        found = [network.body(images_of(file, rows)) for rows in np.array_split(np.arange(len(file.examples)), 64)]
    meta = file.meta
    write_store(
        out,
        examples=torch.nn.functional.normalize(torch.cat(found), dim=1).numpy(),
        counts=meta.counts,
        class_names=meta.class_names,
        schemes=meta.schemes,
        preprocessing=VectorPreprocessing(size=SIZE),
        origin={"importer": f"jobs.benchmarks.unsupervised, {kind}", STORE: meta.fingerprint},
        groups=None if meta.groups is None else meta.groups.names,
    )


def class_means(vectors: Path, split: str, part: Split, shots: int, queries: int, episodes: int) -> Estimate:
    """How class means of vectors do at 5 ways, with nothing trained on labels."""
    source = ClassStore(path=str(vectors), split=split)
    shape = TaskShape(source.feature_shape, 5, preprocessing=source.preprocessing)
    network, meta = start(ClassMeans(), Compared(preprocessing=source.preprocessing), shape, seed=0)
    judge = Judge(source, EpisodeSpec(ways=5, shots=shots, queries=queries), part, episodes, seed=0)
    return evaluate(ClassMeans(), meta, Context(network, ways=5), judge, device=DEVICE).estimate


def main() -> None:
    """Train, write, judge on meta-val."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="what `metaray data import omniglot` wrote")
    parser.add_argument("--kind", choices=sorted(EMBEDDINGS), required=True)
    parser.add_argument("--split", default="vinyals")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = open_store(given.store)
    images = images_of(file, rows_of(file, given.split, str(given.store)))
    began = process_time()
    network, steps = trained(given.kind, images, given.minutes, given.steps, given.seed)
    minutes = (process_time() - began) / 60
    write_vectors(network, file, given.out, given.kind)
    val = {f"{shots}-shot": class_means(given.out, given.split, "meta-val", shots, 15, 300) for shots in (1, 5)}
    made: dict[str, Any] = {"kind": given.kind, "about": network.about, "split": given.split, "images": len(images)}
    made |= {
        "steps": steps,
        "batch": network.batch,
        "seed": given.seed,
        "core_minutes": round(minutes, 2),
        "size": SIZE,
    }
    made["meta_val_class_means"] = {shots: [round(one.mean, 4), round(one.half_width, 4)] for shots, one in val.items()}
    given.out.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
