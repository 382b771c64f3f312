"""What fixtures are made of: experiments, images drawn by numbers alone, points of a curve."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.benchmarks.unchanged.experiments import CLASSES, OWN, VALUES, Tree, own

STORE = "store.arrow"
IMAGES, TASK = Path("images"), Path("task")
SUPPORT, QUERY = TASK / "support", TASK / "query"
VALUES_KNOWN = ([-2.0, -0.5, 0.25, 1.5], [0.5, 1.0, -0.75, 0.125])
VALUES_NEW = [-1.0, 0.0, 2.0]
SIDE, PER_CLASS, NUM_CLASSES = 16, 5, 18

STORED: Tree = {**CLASSES, "source": {"kind": "class_store", "path": STORE, "split": "default"}}
LONG: Tree = {
    "num_steps": 80,
    "checkpoint": {"every": 4},
    "evaluation": {"every": 20, "val_episodes": 3, "test_episodes": 3},
    "optimizer": {"schedule": "cosine"},
}
"""Of runs that are stopped half-way: long enough to be hit."""


class Learner(NamedTuple):
    """A learner that is registered under the name of its experiment.

    Attributes:
        tree: its experiment.
        values: whether it does regression.
    """

    tree: Tree
    values: bool = False


def _learner(name: str, base: Tree, kind: str, **changes: object) -> tuple[str, Learner]:
    tree = {**base, "name": f"unchanged-{name}", "algorithm": {"kind": kind}, **changes}
    return tree["name"], Learner(tree, base is VALUES)


LEARNERS = dict(
    [
        _learner("image", STORED, "maml"),
        _learner("regression", VALUES, "maml"),
        _learner("own-model", STORED, "anil", model=own("PartlyFrozen")),
        _learner("own-algorithm", STORED, f"{OWN}:CityBlock"),
        _learner("mamlpp", STORED, "mamlpp", algorithm={"kind": "mamlpp", "inner_steps": 2, "msl_steps": 2}),
    ]
)
FINISHED: Tree = {**STORED, "name": "finished", "algorithm": {"kind": "protonet"}}
STOPPED: Tree = {**STORED, **LONG, "name": "stopped", "algorithm": {"kind": "maml"}}
STOPPED_RANKS: Tree = {**VALUES, **LONG, "name": "stopped-ranks", "algorithm": {"kind": "meta_sgd"}, "chunk_size": 1}
SEARCHED: Tree = {**VALUES, **LONG, "name": "searched", "algorithm": {"kind": "maml"}}

EXPERIMENTS = {
    **{name: learner.tree for name, learner in LEARNERS.items()},
    **{tree["name"]: tree for tree in (FINISHED, STOPPED, STOPPED_RANKS, SEARCHED)},
}
SEARCH = [
    *("--search", "algorithm.inner_lr=loguniform(1e-3,1e-1)", "--trials", "3", "--seed", "1"),
    *("--searcher", "random", "--scheduler", "none", "--concurrent", "1", "--device", "cpu", "--no-register"),
]


def lay_out(folder: Path) -> None:
    """Write experiments, images and tables into a folder."""
    for name, tree in EXPERIMENTS.items():
        (folder / f"{name}.json").write_text(json.dumps(tree, indent=1, sort_keys=True))
    generator = np.random.default_rng(0)
    for number in range(NUM_CLASSES):
        pattern = generator.integers(0, 2, (4, 4)).repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1) * 160
        for place in range(PER_CLASS):
            noisy = np.clip(pattern + generator.integers(0, 90, (SIDE, SIDE)), 0, 255).astype(np.uint8)
            _save(noisy, folder / IMAGES / f"class-{number:02d}" / f"{place}.png")
            if number < 3 and place < 2:
                _save(noisy, folder / SUPPORT / f"class-{number}" / f"{place}.png")
            elif number < 3 and place < 4:
                _save(noisy, folder / QUERY / f"{number}-{place}.png")
    rows = ["x,y", *(f"{x},{y}" for x, y in zip(*VALUES_KNOWN, strict=True))]
    (folder / TASK / "known.csv").write_text("\n".join(rows) + "\n")
    (folder / TASK / "new.csv").write_text("\n".join(["x", *map(str, VALUES_NEW)]) + "\n")


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
