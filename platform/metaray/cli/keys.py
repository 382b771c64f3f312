"""`metaray train RECIPE --keys`: the keys that `--set` and `--search` take, what they mean, and their values."""

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from metaray.displays.table import UNLIMITED, one_line

if TYPE_CHECKING:
    from metaray.experiment.experiment import Experiment

ATTRIBUTE = re.compile(r"^    (\w+): +(.*(?:\n {8,}.*)*)", re.MULTILINE)
"""A field in the section "Attributes" of a docstring, with the lines that go on."""


def print_keys(experiment: "Experiment") -> None:
    """Print a line `key=value` for each field, as `--set` reads it, after a line `# ...` that says what it means."""
    from metaray.errors import redacted
    from metaray.experiment.overrides import flatten
    from metaray.imports import EVERY_FIELD

    told = dict(_meanings(experiment))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    for key, value in flatten(experiment.model_dump(mode="json", context=EVERY_FIELD)).items():
        meaning = _meaning(told, key)
        begin = f"# {key.rpartition('.')[2]}: "
        for line in textwrap.wrap(meaning, width, initial_indent=begin, subsequent_indent="#   "):
            print(one_line(line))
        print(one_line(f"{key}={redacted(value)}"))


def _meaning(told: dict[str, str], key: str) -> str:
    """That of a field; of a value inside one, such as an inner learning rate of several, that of the whole."""
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
