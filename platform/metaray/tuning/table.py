"""The trials of a search as data: rows, JSON and Parquet. What is not finite is null."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from metaray.tuning.trial import Objective, Trial, winner_of

FIRST = {"number": pa.int64(), "name": pa.string(), "status": pa.string(), "why": pa.string()}
JUDGED = {"step": pa.int64(), "episodes": pa.int64(), "value": pa.float64(), "half_width": pa.float64()}
LAST = {
    "value": pa.float64(),
    "half_width": pa.float64(),
    "best_step": pa.int64(),
    "best_episodes": pa.int64(),
    "episodes": pa.int64(),
    "num_episodes": pa.int64(),
    "seconds": pa.float64(),
    "tracking_run": pa.string(),
    "winner": pa.bool_(),
    "curve": pa.list_(pa.struct(list(JUDGED.items()))),
}


def as_rows(trials: Sequence[Trial], objective: Objective) -> list[dict[str, Any]]:
    """A row a trial, of plain JSON values.

    `value`, `half_width`, `best_step` and `best_episodes` are those of its best evaluation, null where there is none;
    `episodes` are those seen by its last one; `settings` holds its value of each searched field.
    """
    winner = winner_of(trials, objective)
    return [_row(trial, objective, wins=trial is winner) for trial in trials]


def to_json(trials: Sequence[Trial], objective: Objective) -> bytes:
    """The rows as an indented JSON list."""
    return (json.dumps(as_rows(trials, objective), indent=2, allow_nan=False) + "\n").encode()


def to_parquet(trials: Sequence[Trial], objective: Objective) -> bytes:
    """The trials as a Parquet file with a column for each searched field; its metadata name the objective.

    Fields of integers, numbers, strings or booleans keep their type; mixed or nested values become JSON text. A field
    that a trial lacks, or that is None, is null. A field with the name of another column is called `settings.NAME`.
    """
    rows = as_rows(trials, objective)
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in FIRST.items()}
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    for key in keys:
        name = key
        while name in columns or name in LAST or (name != key and name in keys):
            name = f"settings.{name}"
        columns[name] = _column([row["settings"].get(key) for row in rows])
    columns |= {name: pa.array([row[name] for row in rows], kind) for name, kind in LAST.items()}
    table = pa.table(columns).replace_schema_metadata({"objective": objective.name})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def searched_keys(trials: Sequence[Trial]) -> list[str]:
    """Dotted keys of the searched fields, in the order in which the trials name them."""
    return list(dict.fromkeys(key for trial in trials for key in trial.settings))


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a float; booleans are neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_schedule(value: Any) -> bool:
    """Whether a value is a schedule `{"steps": [...], "values": [...]}`, with `values[i]` from `steps[i]` on."""
    if not (isinstance(value, Mapping) and value.keys() == {"steps", "values"}):
        return False
    steps, values = value["steps"], value["values"]
    if not (isinstance(steps, list | tuple) and isinstance(values, list | tuple)):
        return False
    return len(steps) == len(values) > 0 and all(map(is_number, [*steps, *values]))


def _row(trial: Trial, objective: Objective, *, wins: bool) -> dict[str, Any]:
    best = trial.best(objective)
    row = {
        "number": trial.number,
        "name": trial.name,
        "status": trial.status,
        "why": trial.why,
        "settings": trial.settings,
        "objective": objective.name,
        "value": best.value if best is not None else None,
        "half_width": best.half_width if best is not None else None,
        "best_step": best.step if best is not None else None,
        "best_episodes": best.episodes if best is not None else None,
        "episodes": trial.episodes,
        "num_episodes": trial.num_episodes,
        "seconds": trial.seconds,
        "tracking_run": trial.tracking_run,
        "winner": wins,
        "curve": [judged._asdict() for judged in trial.curve],
    }
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """The value with null for what strict JSON, and "?" for what UTF-8, cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _column(values: Sequence[Any]) -> pa.Array:
    known = [value for value in values if value is not None]
    if all(isinstance(value, str) for value in known):
        return pa.array(values, pa.string())
    if all(isinstance(value, bool) for value in known):
        return pa.array(values, pa.bool_())
    whole = [value for value in known if isinstance(value, int)]
    if all(map(is_number, known)) and all(-(2**63) <= value < 2**63 for value in whole):
        if len(whole) == len(known):
            return pa.array(values, pa.int64())
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
