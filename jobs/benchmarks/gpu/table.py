"""The record as tables in Markdown."""

from collections.abc import Iterable, Sequence

from jobs.benchmarks.gpu.record import BAD, Record, Row, Value, Values
from jobs.benchmarks.gpu.section import shown
from jobs.benchmarks.gpu.targets import HEAD, targets

GROUPED = ("conformance",)
"""Sections with many cases an algorithm: a line each, of the worst that was found."""
LEAST = "least "
"""Begins the names of values whose worst is the smallest."""


def tables(record: Record, *, level: int = 2) -> str:
    """All that is on record: what it was found on, how it went, a table a section, and what was wrong.

    Args:
        record: of a run.
        level: of the headings.
    """
    parts = [_machine(record.machine), summary(record)]
    if record.of("execution"):
        parts += [f"{'#' * level} targets", markdown(HEAD, [target.cells for target in targets(record)])]
    for name in record.sections:
        parts += [f"{'#' * level} {name}", str(record.sections[name]["about"] or ""), section_table(record, name)]
        parts += [_problem(row) for row in record.of(name) if row.status in BAD]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(machine: Values) -> str:
    return "\n".join(f"- {name}: {shown(value)}" for name, value in machine.items())


def summary(record: Record) -> str:
    """A line a section: how its cases ended, and itself."""
    lines = []
    for name, section in record.sections.items():
        rows = record.of(name)
        counts = [sum(row.status == status for row in rows) for status in STATUSES]
        ended = section["ended"]
        if section["running"] is not None:
            ended = f"{ended}, during: {section['running']}"
        lines.append([name, *map(str, counts), shown(section["seconds"]), str(ended)])
    return markdown(["section", *STATUSES, "s", "ended"], lines)


STATUSES = ("holds", "wrong", "failed", "out of memory", "skipped", "out of time")


def section_table(record: Record, name: str) -> str:
    """A section's cases, a line each or grouped; those that were not run are listed below."""
    rows = record.of(name)
    found = [row for row in rows if row.values]
    keys = list(dict.fromkeys(key for row in found for key in row.values))
    if name in GROUPED:
        lines = [[kind, *_worst(group, keys)] for kind, group in _groups(found)]
        content = markdown(["", "cases", *(key.removeprefix(LEAST) for key in keys)], lines)
    else:
        lines = [[_marked(row), *(shown(row.values.get(key)) for key in keys)] for row in found]
        content = markdown(["", *keys], lines)
    return "\n\n".join(part for part in (content if lines else "", _not_run(rows)) if part)


def _marked(row: Row) -> str:
    return row.case if row.status == "holds" else f"{row.case}: **{row.status}**"


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """By what their names begin with."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case.partition(",")[0], []).append(row)
    return list(found.items())


def _worst(rows: Sequence[Row], keys: Iterable[str]) -> list[str]:
    """How many cases hold, and of each value the worst."""
    wrong = sum(row.status != "holds" for row in rows)
    cells = [str(len(rows)) + (f", **{wrong} wrong**" if wrong else "")]
    for key in keys:
        numbers = [value for row in rows if isinstance(value := row.values.get(key), float)]
        worst: Value = (min if key.startswith(LEAST) else max)(numbers, default=None)
        # A value that is no number compares with none: it is the worst.
        cells.append(shown(next((number for number in numbers if number != number), worst)))
    return cells


def _not_run(rows: Sequence[Row]) -> str:
    lines = []
    for status in ("skipped", "out of time"):
        some = [row for row in rows if row.status == status]
        for why in dict.fromkeys(row.why for row in some):
            cases = "; ".join(row.case for row in some if row.why == why)
            lines.append(f"- {status} ({why}): {cases}")
    return "\n".join(lines)


def _problem(row: Row) -> str:
    """What was wrong, with the whole traceback where there is one."""
    return f"{row.section}, {row.case}: {row.status}\n\n```\n{row.why.strip()}\n```"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines)]
    )
