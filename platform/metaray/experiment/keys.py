"""The keys of an experiment that can be set or searched, with what their docstrings say of them."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from metaray.errors import redacted
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import flatten

ATTRIBUTE = re.compile(r"^    (\w+): +(.*(?:\n {8,}.*)*)", re.MULTILINE)
"""A field in the section "Attributes" of a docstring, with the lines that go on."""


class Key(NamedTuple):
    """A field of an experiment that `--set` can change.

    Attributes:
        key: Dotted key of the field.
        value: Value of the field as text that `--set` reads, without passwords.
        meaning: Description of the field from the docstring of its class; empty without one.
    """

    key: str
    value: str
    meaning: str


def keys_of(experiment: Experiment) -> list[Key]:
    """All fields of an experiment and of its parts, in the order of their declaration."""
    told = dict(_meanings(experiment))
    values = flatten(experiment.every_field())
    return [Key(key, redacted(value), _meaning(told, key)) for key, value in values.items()]


def _meaning(told: dict[str, str], key: str) -> str:
    """What a field means; for a value inside one, such as one inner learning rate of several, what the whole means."""
    parts = key.split(".")
    ends = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((told[end] for end in ends if end in told), "")


def _meanings(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of a description and the descriptions in it, and what their docstrings say of them."""
    cls = type(config)
    if hasattr(cls, "kind") and "kind" not in cls.model_fields:
        yield f"{prefix}kind", (inspect.getdoc(cls) or "").partition("\n")[0]
    said = {name: text for one in reversed(cls.__mro__) for name, text in _attributes(one)}
    for name in cls.model_fields:
        if name in said:
            yield f"{prefix}{name}", said[name]
        if hasattr(type(value := getattr(config, name)), "model_fields"):
            yield from _meanings(value, f"{prefix}{name}.")


def _attributes(cls: type) -> Iterator[tuple[str, str]]:
    _, section, text = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
    if section:
        text = re.split(r"\n(?=\S)", text, maxsplit=1)[0]  # the next section is not indented
        yield from ((name, " ".join(told.split())) for name, told in ATTRIBUTE.findall(text))
