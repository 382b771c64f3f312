"""What a page is made of: plain values, which the template knows how to show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from metaray.reports.facts import Example, Missing


@dataclass(frozen=True)
class Block:
    """A part of a section; `shape` says which part of the template shows it."""

    shape: ClassVar[str]


@dataclass(frozen=True)
class Pairs(Block):
    """Facts: what, and what it is."""

    shape: ClassVar[str] = "pairs"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table(Block):
    """Rows under a head; all columns but the first are numbers where `numbers` says so."""

    shape: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numbers: bool = True


@dataclass(frozen=True)
class Pictures(Block):
    """Charts beside one another, as far as there is room; each with a caption."""

    shape: ClassVar[str] = "pictures"
    charts: Sequence[tuple[Markup, str]]


@dataclass(frozen=True)
class Absent(Block):
    """What a report cannot tell, why, and what would make it."""

    shape: ClassVar[str] = "absent"
    what: str
    missing: Missing


@dataclass(frozen=True)
class Prose(Block):
    """A paragraph."""

    shape: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Code(Block):
    """Text as it is to be typed or read by a machine."""

    shape: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Tasks(Block):
    """Example tasks."""

    shape: ClassVar[str] = "tasks"
    examples: Sequence[Example]


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that are shown once somebody wants to see them."""

    shape: ClassVar[str] = "folded"
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """A number at the head of a page: what it is, the number, and what to know about it."""

    what: str
    number: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: What it is of.
        above: What kind of thing that is.
        below: A sentence.
        cards: The numbers that matter most.
        sections: The rest; empty ones are left out.
    """

    title: str
    above: str
    below: str
    cards: Sequence[Card]
    sections: Sequence[Section]
