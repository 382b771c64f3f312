"""Changing, flattening and comparing experiments by dotted keys."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from metaray.errors import InputError, unknown
from metaray.training.experiment import Experiment

KINDS = ("source", "model", "algorithm")


def override(experiment: Experiment, settings: Iterable[str]) -> Experiment:
    """Apply `dotted.key=value` settings. Values are read as JSON where they are JSON, as text otherwise.

    Kinds come first, an outer one before those inside it, since another kind drops the fields of the old one; the rest
    follow in the order given, so that the later of two wins.

    Raises:
        InputError: for a malformed setting, an unknown key (with the nearest right one) or a wrong value.
    """
    tree = experiment.model_dump(mode="json")
    changed: set[str] = set()
    for key, value in sorted(map(_parsed, settings), key=_turn):
        _set(tree, key, value, changed)
    return Experiment.parse(tree, where=f"experiment {experiment.name}")


def _parsed(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting!r}: write it as dotted.key=value, for instance algorithm.inner_lr=0.1")
    return key, _value(text)


def _turn(setting: tuple[str, Any]) -> tuple[bool, int]:
    """What settings are sorted by: kinds by their depth, before all others."""
    path = setting[0].split(".")
    return (False, len(path)) if path[-1] == "kind" else (True, 0)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"none": None, "None": None, "True": True, "False": False}.get(text, text)


def _set(tree: dict[str, Any], key: str, value: Any, changed: set[str]) -> None:
    """Set one key; `changed` collects the groups of another kind, whose fields only validation knows."""
    *parents, last = key.split(".")
    node = tree
    for depth, part in enumerate(parents):
        if ".".join(parents[:depth]) in changed and part not in node:
            node[part] = {}
            changed.add(".".join(parents[: depth + 1]))
        if part not in node:
            raise unknown("key", key, _keys_like(tree, ".".join(parents[:depth])))
        if node[part] is None:
            # An optional part that the recipe left out: start from its defaults, validation checks the rest.
            node[part] = _defaults(tree, ".".join(parents[: depth + 1]))
        if not isinstance(node[part], dict):
            raise InputError(f"key {key!r}: {'.'.join(parents[: depth + 1])} is a value, not a group")
        node = node[part]
    if last not in node and not _is_open(parents) and ".".join(parents) not in changed:
        raise unknown("key", key, _keys_like(tree, ".".join(parents)))
    typed = bool(parents) and parents[0] in KINDS and not _is_open(parents)
    if last == "kind" and typed and value != node.get("kind", value):
        # Another kind has other fields: keep none of the old ones.
        node.clear()
        changed.add(".".join(parents))
    node[last] = value


def _defaults(tree: dict[str, Any], path: str) -> dict[str, Any]:
    if path == "evaluation.episodes":
        return dict(tree["episodes"])
    return {}


def _is_open(parents: list[str]) -> bool:
    return parents == ["model", "options"] or parents[-1:] == ["inner_lr"]


def _keys_like(tree: Mapping[str, Any], prefix: str) -> list[str]:
    node: Any = tree
    for part in filter(None, prefix.split(".")):
        node = node[part]
    return [f"{prefix}.{key}" if prefix else key for key in node]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and their values as text, for MLflow parameters and comparisons."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line a field in which two experiments, as JSON trees, differ: `algorithm.inner_lr: 0.4 -> 0.1`."""
    old, new = flatten(before), flatten(after)
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}" for key in sorted(keys)]
