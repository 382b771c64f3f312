"""What the pages hold: blocks of code, commands, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"<!-- not run: (.+?) -->")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its path from the checkout's root.
        line: where it begins, from 1.
        language: what its fence says; empty where it says nothing.
        text: what is in it, without the indentation of its fence.
        reason: why it is not run, where the page says so just before it.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a block of commands, continued ones joined, comments cut off."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [found for line in lines if (found := re.sub(r"(^|\s+)# .*$|^#.*$", "", line).strip())]


def pages() -> list[Path]:
    """All Markdown of the checkout that people read."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "cluster").rglob("*.md")),
    ]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    name, at = page.relative_to(ROOT).as_posix(), 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if not opened:
            at += 1
            continue
        indent, begun = len(opened[1]), at
        at += 1
        while lines[at].strip() != "```":
            at += 1
        marked = next((MARK.search(line) for line in reversed(lines[:begun]) if line.strip()), None)
        text = "".join(f"{line[indent:]}\n" for line in lines[begun + 1 : at])
        yield Block(name, begun + 1, opened[2], text, marked[1] if marked else None)
        at += 1


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


def links(page: Path) -> Iterator[str]:
    """What a page links to and shows, outside of code."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "code", text)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r'src="([^"]+)"', text)
