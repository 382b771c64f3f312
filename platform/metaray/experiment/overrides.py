"""Changing, flattening and comparing experiments by dotted keys."""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.algorithms.families.inner_lr import with_part
from metaray.episodes.augmentation import Augmentation
from metaray.errors import InputError, unknown
from metaray.experiment.experiment import Experiment
from metaray.imports import dump_kind, parse_kind
from metaray.json_text import parse_json
from metaray.optimizers import OPTIMIZERS, Group, OuterOptimizer
from metaray.optimizers.classic import Classic

KINDS = ("source", "model", "algorithm", "optimizer")
OPEN = (["model", "options"], ["optimizer", "options"])
"""Groups whose keys are a user's own."""
GROUPS, SCHEDULE = ["optimizer", "groups"], ["optimizer", "schedule"]


def override(experiment: Experiment, settings: Iterable[str]) -> Experiment:
    """Apply `dotted.key=value` settings to an experiment; values are read as JSON if possible, else as text.

    Raises:
        InputError: If a setting is malformed, a key unknown (the message suggests the nearest one) or a value invalid.
    """
    return changed(experiment, map(_parsed, settings))


def changed(experiment: Experiment, values: Iterable[tuple[str, Any]]) -> Experiment:
    """Return the experiment with other values, in JSON types, for some dotted keys.

    Kinds are applied first, outer ones before those inside, since another kind drops the fields of the old one. The
    rest follow in the given order, so that the later of two wins.

    Keys also lead into an inner learning rate: `algorithm.inner_lr.` is followed by a parameter pattern, dots included,
    by a schedule's `steps` or `values`, or, for rates by inner step, by the number of a step. The same holds for
    `optimizer.groups.PATTERN.outer_lr`. A new kind of optimiser keeps the settings that it has as well.

    Raises:
        InputError: If a key is unknown (the message suggests the nearest one) or a value invalid.
    """
    tree = experiment.every_field()
    fresh: set[str] = set()
    for key, value in sorted(values, key=_turn):
        _set(tree, key, deepcopy(value), fresh)
    return Experiment.parse(tree, where=f"experiment {experiment.name}")


def _parsed(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting!r}: write it as dotted.key=value, for instance algorithm.inner_lr=0.1")
    return key, _value(text)


def _turn(setting: tuple[str, Any]) -> tuple[bool, int]:
    """What settings are sorted by: kinds by their depth, before all others."""
    path, part = _split(setting[0])
    return (False, len(path)) if path[-1] == "kind" and part is None else (True, 0)


def _split(key: str) -> tuple[list[str], str | None]:
    """The path to a field, where a pattern with its dots is one part; of an inner learning rate what part is meant."""
    path = key.split(".")
    if path[0] == "algorithm" and "inner_lr" in path[:-1]:
        at = path.index("inner_lr") + 1
        return path[:at], ".".join(path[at:])
    if path[:2] == GROUPS and len(path) > 2:
        end = -1 if path[-1] in Group.model_fields else len(path)
        return [*GROUPS, ".".join(path[2:end]), *path[end:]], None
    return path, None


def _value(text: str) -> Any:
    try:
        return parse_json(text, where="value")
    except InputError:
        return {"none": None, "None": None, "True": True, "False": False}.get(text, text)


def _set(tree: dict[str, Any], key: str, value: Any, fresh: set[str]) -> None:
    """Set one key; `fresh` collects the groups of another kind, whose fields only validation knows."""
    (*parents, last), part = _split(key)
    node = _group(tree, key, parents, fresh)
    if last not in node and parents not in OPEN and parents[:2] != GROUPS and ".".join(parents) not in fresh:
        raise unknown("key", key, _keys_like(tree, ".".join(parents)))
    if part is not None:
        value = _with_part(node, key, part, value)
    elif (
        last == "kind" and parents and parents[0] in KINDS and parents not in OPEN and value != node.get("kind", value)
    ):
        # Another kind has other fields: keep none of the old ones, of an optimiser those that all have.
        kept = (
            {name: node[name] for name in _shared(value, node.get("kind")) if name in node}
            if parents == ["optimizer"]
            else {}
        )
        node.clear()
        node.update(kept)
        fresh.add(".".join(parents))
    node[last] = value


def _shared(*kinds: Any) -> Iterable[str]:
    """The fields that several kinds of optimisers have from us, so that they mean the same."""
    classic = all(issubclass(OPTIMIZERS.get(str(kind), OuterOptimizer), Classic) for kind in kinds)
    return (Classic if classic else OuterOptimizer).model_fields


def _group(tree: dict[str, Any], key: str, parents: list[str], fresh: set[str]) -> dict[str, Any]:
    """The group at the path `parents`, on the way to `key`."""
    node = tree
    for depth, part in enumerate(parents):
        if ".".join(parents[:depth]) in fresh and part not in node:
            node[part] = {}
            fresh.add(".".join(parents[: depth + 1]))
        if parents[:depth] == GROUPS:
            node.setdefault(part, {})
        if part not in node:
            raise unknown("key", key, _keys_like(tree, ".".join(parents[:depth])))
        if parents[: depth + 1] == SCHEDULE and isinstance(node[part], str):
            node[part] = {"kind": node[part]}
            fresh.add(".".join(SCHEDULE))
        if node[part] is None:
            # An optional part that the recipe left out: start from its defaults, validation checks the rest.
            node[part] = _defaults(tree, ".".join(parents[: depth + 1]))
        if not isinstance(node[part], dict):
            raise InputError(f"key {key!r}: {'.'.join(parents[: depth + 1])} is a value, not a group")
        node = node[part]
    return node


def _defaults(tree: dict[str, Any], path: str) -> dict[str, Any]:
    if path == "evaluation.episodes":
        return dict(tree["episodes"])
    if path == "augmentation":
        return {name: field.default for name, field in Augmentation.model_fields.items()}
    return {}


def _with_part(algorithm: dict[str, Any], key: str, part: str, value: Any) -> Any:
    """The inner learning rate of an algorithm with one part changed."""
    valid = _completed(algorithm) or algorithm
    now = valid.get("inner_lr")
    if part.isdecimal() and isinstance(now, int | float) and isinstance(valid.get("inner_steps"), int):
        by_step = [now] * valid["inner_steps"]
        if _completed({**algorithm, "inner_lr": by_step}):  # it takes one rate per inner step
            now = by_step
    try:
        return with_part(now, part, value)
    except InputError as error:
        raise InputError(f"key {key!r}: {error}") from None


def _completed(algorithm: dict[str, Any]) -> dict[str, Any] | None:
    """An algorithm as JSON with its defaults; None if it is not valid, or not yet."""
    try:
        return dump_kind(parse_kind(algorithm, ALGORITHMS, Algorithm, what="algorithm"), ALGORITHMS)
    except InputError:
        return None


def _keys_like(tree: Mapping[str, Any], prefix: str) -> list[str]:
    node: Any = tree
    for part in filter(None, prefix.split(".")):
        node = node[part]
    return [f"{prefix}.{key}" if prefix else key for key in node]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and their values as text, as for MLflow parameters and comparisons."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each field in which two experiments, as JSON trees, differ: `algorithm.inner_lr: 0.4 -> 0.1`."""
    old, new = flatten(before), flatten(after)
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}" for key in sorted(keys)]
