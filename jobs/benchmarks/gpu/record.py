"""What was found, kept on disk after every case: whatever cuts the run off, all that was found before can be read."""

import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

Status = Literal["holds", "wrong", "failed", "skipped", "out of memory", "out of time"]
BAD: tuple[Status, ...] = ("wrong", "failed", "out of memory")
Value = str | int | float | bool | None
Values = dict[str, Value]


class Row(NamedTuple):
    """How one case went.

    Attributes:
        section: that it belongs to.
        case: its name.
        status: "holds" where nothing speaks against it, be it checked or only measured; "wrong" where a check does not
            hold.
        values: what was found, by name and unit.
        why: a sentence, or the traceback of what failed.
        seconds: that it took.
    """

    section: str
    case: str
    status: Status
    values: Values
    why: str = ""
    seconds: float = 0.0


class Record:
    """The rows found so far, and what they were found on, in one JSON file.

    Args:
        path: of the file; one that is there is gone on with.
        machine: what the rows were found on.

    Attributes:
        machine: likewise.
        sections: by name: what is compared ("about"), how long it took, and how it ended.
        rows: of all cases, in the order in which they were run.
    """

    def __init__(self, path: Path, machine: Values | None = None) -> None:
        self.path = path
        self.machine: Values = machine or {}
        self.sections: dict[str, Values] = {}
        self.rows: list[Row] = []
        if path.exists():
            tree = json.loads(path.read_text())
            self.machine |= tree["machine"]
            self.sections, self.rows = tree["sections"], [Row(**row) for row in tree["rows"]]

    @classmethod
    def new(cls, path: Path, machine: Values) -> Self:
        """An empty one in the place of whatever is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        found = cls(path, {**machine, "started": time.strftime("%Y-%m-%d %H:%M:%S %Z")})
        found.save()
        return found

    def begin(self, section: str, about: str) -> None:
        """A section begins anew; its earlier rows go."""
        self.rows = [row for row in self.rows if row.section != section]
        self.sections[section] = {"about": about, "seconds": 0.0, "ended": "cut off", "running": None}
        self.save()

    def runs(self, section: str, case: str) -> None:
        """A case begins: should nothing come after, this one was it."""
        self.sections[section]["running"] = case
        self.save()

    def add(self, row: Row) -> None:
        """A case has ended."""
        self.rows.append(row)
        self.save()

    def end(self, section: str, seconds: float, ended: str) -> None:
        """A section has ended; `ended` says how."""
        kept = self.sections.setdefault(section, {"about": "", "running": None})
        kept |= {"seconds": round(seconds, 1), "ended": ended}
        if ended == "whole":
            kept["running"] = None
        self.save()

    def of(self, section: str) -> list[Row]:
        """The rows of a section."""
        return [row for row in self.rows if row.section == section]

    @property
    def is_good(self) -> bool:
        """Whether every section that began came to its end, and nothing in it was wrong or failed."""
        whole = all(section["ended"] == "whole" for section in self.sections.values())
        return whole and not any(row.status in BAD for row in self.rows)

    def save(self) -> None:
        """Written beside, then renamed."""
        tree: dict[str, Any] = {"machine": self.machine, "sections": self.sections}
        tree["rows"] = [row._asdict() for row in self.rows]
        beside = self.path.with_name(f".{self.path.name}.tmp")
        beside.write_text(json.dumps(tree, indent=1) + "\n")
        beside.replace(self.path)
