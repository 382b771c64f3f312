"""The experiments that are compared: short, small, and between them whatever may change the bits of a run.

Each is an experiment's JSON, as `metaray train FILE.json` takes it, and says all that matters: what it leaves out are
defaults, which both sides then have to agree on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Tree = dict[str, Any]

OWN = "own_code"
"""Module name of the copy of `own_code.py` in the folder of a side."""

GLYPHS: Tree = {"kind": "glyphs"}
SINUSOIDS: Tree = {"kind": "function_family"}
CONV: Tree = {"kind": "conv4", "channels": 4, "downsample": "stride"}
PERCEPTRON: Tree = {"kind": "mlp", "hidden": [6, 5]}
SHORT: Tree = {
    "meta_batch_size": 3,
    "num_steps": 3,
    "checkpoint": {"every": 1},
    "evaluation": {"every": 2, "val_episodes": 2, "test_episodes": 2},
}
CLASSES: Tree = {
    **SHORT,
    "source": GLYPHS,
    "episodes": {"ways": 3, "shots": 1, "queries": 2},
    "model": CONV,
    "chunk_size": 1,
}
VALUES: Tree = {
    **SHORT,
    "source": SINUSOIDS,
    "episodes": {"ways": 1, "shots": 4, "queries": 3},
    "model": PERCEPTRON,
    "chunk_size": 3,
}

LEARNS_VALUES: dict[str, Tree] = {
    "maml": {"inner_lr": 0.05, "inner_steps": 2},
    "fomaml": {"inner_steps": 2},
    "reptile": {"inner_steps": 3, "eval_steps": 3, "batch_size": 2},
    "anil": {"inner_lr": 0.1, "inner_steps": 2},
    "boil": {"inner_lr": 0.1},
    "meta_sgd": {"inner_lr": 0.05, "inner_steps": 2},
    "mamlpp": {"inner_steps": 2, "msl_steps": 2, "first_order_steps": 1},
    "imaml": {"inner_steps": 3, "cg_steps": 2, "damping": 1},
    "cavia": {"context_size": 4, "inner_lr": 1.0},
    "r2d2": {},
    "metaoptnet_ridge": {"regularizer": 2.0},
    "cnp": {"encoder": [5], "representation": 4, "decoder": [5]},
    "learned_optimizer": {"inner_steps": 2, "hidden": 4},
    "baseline": {"inner_steps": 4},
}
"""The algorithms that do classes and values, with hyperparameters that make them quick."""

ONLY_CLASSES: dict[str, Tree] = {
    "proto_maml": {"inner_lr": 0.05},
    "protonet": {},
    "matchingnet": {"temperature": 0.5},
    "relationnet": {},
    "metaoptnet_svm": {"iterations": 4},
    "baselinepp": {"inner_steps": 4},
}

NOT_TRAINED = ("nearest_neighbor",)
"""It has no meta-parameters, and so no run of its own; each run says how well it does."""

BFLOAT16: Tree = {"dtype": "bfloat16", "channels_last": True}
FULL_OPTIMIZER: Tree = {"kind": "adamw", "schedule": "cosine", "warmup_steps": 1, "clip_norm": 0.5, "weight_decay": 0.1}
MOMENTUM: Tree = {"kind": "sgd", "momentum": 0.9, "schedule": "step", "decay_every": 1, "outer_lr": 0.01}
UMTRA: Tree = {"kind": "umtra", "source": {**GLYPHS, "rotations": True}, "max_turn_degrees": 20, "max_brightness": 0.2}


class Compared(NamedTuple):
    """One experiment.

    Attributes:
        name: of its run.
        tree: its JSON.
        ranks: workers; 0 trains in process, without Ray.
    """

    name: str
    tree: Tree
    ranks: int = 0


def every(omniglot: str | None = None) -> list[Compared]:
    """All experiments; those on Omniglot only where its class store is at hand.

    Args:
        omniglot: path of the class store.
    """
    found = [*_algorithms(), *_features(), *_on_ranks()]
    return found + (_on_omniglot(omniglot) if omniglot else [])


def own(name: str) -> Tree:
    """A network of the user's own."""
    return {"kind": "custom", "path": f"{OWN}:{name}"}


def _compared(
    name: str, base: Mapping[str, Any], kind: str, fields: Tree, *, ranks: int = 0, **changes: Any
) -> Compared:
    return Compared(name, {**base, "name": name, "algorithm": {"kind": kind, **fields}, **changes}, ranks)


def _algorithms() -> list[Compared]:
    """Each with both kinds of tasks that it does; one batch norm protocol with one kind, the other with the other."""
    found = []
    for place, (kind, fields) in enumerate({**LEARNS_VALUES, **ONLY_CLASSES}.items()):
        ways = ("transductive", "inductive")
        here, there = ways[place % 2], ways[1 - place % 2]
        name = kind.replace("_", "-")
        found.append(_compared(f"classes-{name}", CLASSES, kind, {**fields, "batch_norm": here}))
        if kind in LEARNS_VALUES:
            found.append(_compared(f"values-{name}", VALUES, kind, {**fields, "batch_norm": there}))
    return found


def _features() -> list[Compared]:
    """What an experiment can have besides its algorithm."""
    many = {"kind": "conv4", "channels": 3, "pools": 2}
    judged = {**SHORT["evaluation"], "episodes": {"ways": 2, "shots": 2, "queries": 1}, "inner_steps": 2, "seed": 3}
    schedule = {"steps": [0, 2], "values": [0.05, 0.02]}
    residual = {"kind": "resnet12", "channels": [3, 3, 4, 4], "pool": "mean", "drop_rate": 0.2, "block_size": 2}
    return [
        _compared("chunks-of-three", CLASSES, "maml", {"batch_norm": "inductive"}, chunk_size=3, meta_batch_size=4),
        _compared("bfloat16", CLASSES, "maml", {}, precision=BFLOAT16, optimizer=FULL_OPTIMIZER),
        _compared("bfloat16-in-chunks", CLASSES, "protonet", {}, precision=BFLOAT16, chunk_size=3, model=many),
        _compared("dropout", CLASSES, "maml", {}, model=own("Dropping"), seed=5),
        _compared("dropout-in-chunks", CLASSES, "fomaml", {"inner_lr": schedule}, model=residual, chunk_size=3),
        _compared("frozen-parts", CLASSES, "anil", {}, model=own("PartlyFrozen"), optimizer=MOMENTUM),
        _compared("own-algorithm", CLASSES, f"{OWN}:CityBlock", {"sharpness": 0.5}, evaluation=judged),
        _compared("umtra", CLASSES, "maml", {"batch_norm": "transductive"}, source=UMTRA),
    ]


def _on_ranks() -> list[Compared]:
    """On three ranks, which divide none of these meta-batches."""
    return [
        _compared("ranks-classes", CLASSES, "maml", {"batch_norm": "transductive"}, ranks=3, meta_batch_size=5),
        _compared("ranks-values", VALUES, "meta_sgd", {}, ranks=3, meta_batch_size=8, optimizer=FULL_OPTIMIZER),
        _compared("ranks-dropout", CLASSES, "maml", {}, ranks=3, model=own("Dropping"), meta_batch_size=4),
        _compared("ranks-bfloat16", CLASSES, "protonet", {}, ranks=3, precision=BFLOAT16, meta_batch_size=5),
    ]


def _on_omniglot(path: str) -> list[Compared]:
    source = {"kind": "class_store", "path": path, "split": "vinyals", "rotations": True}
    lake = {**source, "split": "lake", "rotations": False}
    return [
        _compared("omniglot-maml", CLASSES, "maml", {"batch_norm": "transductive"}, source=source),
        _compared("omniglot-protonet", CLASSES, "protonet", {}, source=lake, chunk_size=3),
    ]
