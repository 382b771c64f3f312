"""Numbers in words, as all pages have them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaray.records.estimate import Estimate
from metaray.records.over_groups import GroupEstimate
from metaray.reports.blocks import Block, Code, Folded, Pairs, Prose, Section, Table
from metaray.reports.settings import described, json_of, settings_of


def number(value: float | None) -> str:
    """A number with four decimals, or as many digits where it is large or small; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def interval(one: Estimate | GroupEstimate) -> str:
    """A mean and its half width, such as "0.8786 ± 0.0041"."""
    wide = f" \u00b1 {number(one.half_width)}" if math.isfinite(one.half_width) else ""
    return f"{number(one.mean)}{wide}"


def duration(seconds: float) -> str:
    """A duration in words, such as "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def size(size_bytes: int) -> str:
    """A size in words, such as "312 MiB"."""
    return f"{size_bytes / 2**20:.0f} MiB" if size_bytes < 2**30 else f"{size_bytes / 2**30:.2f} GiB"


def trained_facts(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained, with what, from the JSON of an experiment of any version."""
    names = (
        ("experiment", "name"),
        ("algorithm", "algorithm"),
        ("model", "model"),
        ("meta-train episodes", "episodes"),
        ("judged", "evaluation"),
        ("outer optimiser", "optimizer"),
        ("meta-batch", "meta_batch_size"),
        ("outer steps", "num_steps"),
        ("precision", "precision"),
        ("seed", "seed"),
    )
    return [(told, described(tree[key])) for told, key in names if tree.get(key) is not None]


def ran_facts(origin: Mapping[str, str], environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The machine and the software of a run: its tags, and what its newest checkpoint says."""
    versions = [f"{key.removesuffix('.version')} {text}" for key, text in origin.items() if key.endswith(".version")]
    commit = origin.get("git.commit", "")
    dirty = "" if origin.get("git.dirty") == "false" else ", and changes that are not in it"
    told = [
        ("device", environment.get("device", "")),
        ("processor", environment.get("cpu", "")),
        ("instructions", environment.get("cpu_instructions", "") or origin.get("cpu.capability", "")),
        ("GPU", environment.get("gpu", "")),
        ("made with", ", ".join(versions)),
        ("commit", f"{commit}{dirty}" if commit else ""),
    ]
    return [(what, text) for what, text in told if text]


def again_section(
    again: str, report: str, origin: Mapping[str, str], environment: Mapping[str, str], tree: Mapping[str, Any]
) -> Section:
    """Where it ran, and what to type to have it again."""
    where = ran_facts(origin, environment)
    blocks: list[Block] = [Pairs(where)] if where else [Prose("Where it ran was not recorded.")]
    if again:
        blocks += [Prose("This made it; under another --run name it is made again:"), Code(again)]
    else:
        blocks.append(Prose("The command that made it was not recorded; the experiment below trains it again."))
    blocks += [Prose("This makes the report again:"), Code(report)]
    if tree:
        rows = list(settings_of(tree).items())
        blocks.append(Folded(f"All {len(rows)} settings", [Table(("setting", "value"), rows, numbers=False)]))
        blocks.append(Folded("The experiment as JSON, which `metaray train FILE` takes", [Code(json_of(tree))]))
    return Section("Where it ran, and how to make it again", blocks)


def notes_section(notes: Sequence[str]) -> Section:
    """What is wrong with what the report is of."""
    return Section("Notes", [Prose(note) for note in notes])
