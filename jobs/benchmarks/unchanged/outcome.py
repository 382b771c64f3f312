"""What a run left, read from the files of its folder, and the comparison of two of them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import deserialize

SAME = "same"
TIMED = re.compile(r"(^|[/_.])(wait|seconds?|time|speed|duration)([/_.]|$)|_per_s$|_m?s$")
"""Keys of what is measured in seconds or by them, in results and journals."""
SEAL = "sha256"
"""Key of the checksum of a file, which covers what was timed."""
MOVED = {"baselines.nearest_neighbor.val_scores": "baseline_val_scores"}
PLACE = "device"
"""Key of what a run was judged on, which old results do not say: no part of what came out."""

Values = dict[str, str]


class Outcome(NamedTuple):
    """What a run left, as text by name, so that two can be compared exactly.

    Attributes:
        problem: why there is nothing to compare; empty otherwise.
        parameters: the digest that the run gives itself, and one of each tensor in its checkpoints.
        results: of result.json, without what was timed.
        journal: the value of each key at each step, likewise.
    """

    problem: str
    parameters: Values
    results: Values
    journal: Values


class Row(NamedTuple):
    """A line of the table: for each part "same", or the first difference."""

    name: str
    parameters: str
    results: str
    journal: str

    @property
    def equal(self) -> bool:
        """Whether all parts are the same."""
        return {self.parameters, self.results, self.journal} == {SAME}


def outcome_of(run: Path) -> Outcome:
    """What a run left in its folder.

    Raises:
        ValueError: naming the file that cannot be read.
    """
    if not (run / "result.json").is_file():
        return Outcome("no result", {}, {}, {})
    results = {_as_before(key): value for key, value in flat(_json(run / "result.json")).items()}
    digest = {"parameters_sha256": results.pop("parameters_sha256", "missing")}
    results = {key: value for key, value in results.items() if key not in (SEAL, PLACE) and not TIMED.search(key)}
    return Outcome("", digest | tensors_of(run), results, journal_of(run))


def _as_before(key: str) -> str:
    """A field of a result by the name it had before it was moved."""
    found = next((new for new in MOVED if key.startswith(f"{new}.")), None)
    return key if found is None else MOVED[found] + key.removeprefix(found)


def journal_of(run: Path) -> Values:
    """The journal of a run: what was first written down of each key at each step, without what was timed."""
    found: Values = {}
    for path in sorted(run.glob("metrics/*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            entry = _parsed(line, f"{path}, line {number}")
            if not {"key", "step", "value"} <= entry.keys():
                raise ValueError(f"{path}, line {number}: no key, step and value")
            if not TIMED.search(entry["key"]):
                found.setdefault(f"{entry['key']} at step {entry['step']}", repr(entry["value"]))
    return found


def tensors_of(run: Path) -> Values:
    """Of each tensor in each checkpoint its type, shape and digest: parameters, and the optimiser's state."""
    found: Values = {}
    for path in sorted(run.glob("checkpoints/*/*.safetensors")):
        for name, tensor in sorted(deserialize(path.read_bytes())):  # type: ignore[no-untyped-call]
            digest = hashlib.sha256(tensor["data"]).hexdigest()
            found[f"{name} in {path.parent.name}"] = f"{tensor['dtype']}{tensor['shape']} {digest[:16]}"
    return found


def flat(tree: Any, prefix: str = "") -> Values:
    """A tree of JSON with dotted keys, each leaf as its JSON."""
    if isinstance(tree, Mapping):
        items: Iterable[tuple[str, Any]] = tree.items()
    elif isinstance(tree, list) and tree:
        items = ((str(place), value) for place, value in enumerate(tree))
    else:
        return {prefix: json.dumps(tree)}
    found: Values = {}
    for key, value in items:
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def difference(old: Values, new: Values) -> str:
    """ "same", or the first difference in words."""
    if not old and not new:
        return "nothing to compare"
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            return f"{key}: gone, it was {_short(old[key])}"
        if key not in old:
            return f"{key}: new, {_short(new[key])}"
        if old[key] != new[key]:
            return f"{key}: {_short(old[key])} became {_short(new[key])}"
    return SAME


def compared(name: str, old: Outcome, new: Outcome) -> Row:
    """One line of the table."""
    if old.problem or new.problem:
        told = f"old: {old.problem or 'done'}; new: {new.problem or 'done'}"
        return Row(name, told, "", "")
    pairs = zip(old[1:], new[1:], strict=True)
    return Row(name, *(difference(one, without_additions(one, other)) for one, other in pairs))


def without_additions(old: Values, new: Values) -> Values:
    """The new side without keys of a metric or field that the old one has nowhere: what is told in addition changes
    nothing."""
    known = {_name(key) for key in old}
    return {key: value for key, value in new.items() if not old or _name(key) in known}


def _name(key: str) -> str:
    """Of the metric, or of the field with its place but for numbers: `trials.3.value` is `trials.value`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", key.partition(" at step ")[0])


def table(rows: list[Row]) -> str:
    """In Markdown, with the line that sums it up."""
    lines = ["| experiment | parameters | results | journal |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join([*lines, "", f"{sum(row.equal for row in rows)} of {len(rows)} equal"])


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}..."


def _json(path: Path) -> Any:
    return _parsed(path.read_text(), str(path))


def _parsed(text: str, where: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where}: not a JSON object")
    return found
