"""The trials of a finished search as a table whose rows never wrap.

Of these forms the first that is no wider than the terminal is printed:

1. a row a trial, with a column for each searched field;
2. the same without lines between columns, and with their names over several lines: `meta_` above `batch_size`;
3. the same without the fields that are equal in all trials, which a line below names;
4. a block a trial: a line that says how it went, and its searched fields on indented lines below.

Where nobody watches (a pipe or a file) it is always the first.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.measure import Measurement

from metaray.displays.table import UNLIMITED, make_table, one_line
from metaray.displays.trials_display import constant, settings_text, short_names, stacked, value_text

BLANK = "\0"


def trials_text(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], objective: str) -> str:
    """A search's trials, for where standard output goes.

    Args:
        rows: Rows of `metaray.tuning.table.as_rows`.
        keys: The searched fields.
        objective: Name of what `value` is.
    """
    short = short_names(keys)
    same = constant([row["settings"] for row in rows], keys)
    broken = {key: stacked(name) for key, name in short.items()}
    for shown in (short, broken, {key: name for key, name in broken.items() if key not in same}):
        best = f"best {objective}" if shown is short else f"best\n{objective}"
        columns = ["trial", "status", *shown.values(), "episodes", best]
        lines = [[*_begin(row), *_values(row, shown), *_end(row)] for row in rows]
        console, table = make_table(columns, lines, tight=shown is not short)
        if Measurement.get(console, console.options.update(width=UNLIMITED), table).maximum <= console.width:
            with console.capture() as captured:
                console.print(table)
            text = captured.get().rstrip("\n")
            return f"{text}\nin all trials: {settings_text(same)}" if len(shown) < len(short) else text
    return "\n".join("\n".join(_block(row, short, objective, console.width)) for row in rows)


def _begin(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["name"], row["status"].removesuffix(" early")


def _values(row: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
    return [value_text(row["settings"].get(key)) for key in keys]


def _end(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["episodes"]), "" if row["value"] is None else f"{row['value']:.4f}"


def _block(row: Mapping[str, Any], names: Mapping[str, str], objective: str, width: int) -> list[str]:
    episodes, value = _end(row)
    best = f"  best {objective} {value}" if value else ""
    fields = [f"{name}={value}" for name, value in zip(names.values(), _values(row, names), strict=True)]
    # Lines are broken between fields only, so blanks inside one are something else for the moment.
    whole = "  ".join(one_line(field).replace(" ", BLANK) for field in fields)
    told = textwrap.wrap(whole, max(20, width - 4), break_long_words=False, break_on_hyphens=False)
    return [
        f"{'  '.join(_begin(row))}  {episodes} episodes{best}",
        *(f"    {line.replace(BLANK, ' ')}" for line in told),
    ]
