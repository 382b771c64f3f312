"""The language of docstrings: whole phrases that name what they tell."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import metaray

PACKAGE = Path(metaray.__file__).parent
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
NAMED = re.compile(r"\*{0,2}[A-Za-z_][\w.]*: (.*)")
BARE = re.compile(
    "(of|that|which|whose|who|whom|from|with|without|to|in|into|by|as|for|at|on|under|per|between|through|after|before"
    r"|than|and|likewise)\b(?!-)",
    re.IGNORECASE,
)
"""What a fragment begins with: what it speaks of has to be guessed from the name beside it."""
BARE_SUMMARY = re.compile(r"(of|that|whose|with|without|to|in|by|as|for|at|under|from|likewise)\b(?!-)", re.IGNORECASE)


class Said(NamedTuple):
    """A docstring's summary, or an entry of one of its sections."""

    where: str
    text: str
    is_summary: bool

    @property
    def is_fragment(self) -> bool:
        return bool((BARE_SUMMARY if self.is_summary else BARE).match(self.text))

    @property
    def is_small(self) -> bool:
        """A word in small letters, where a symbol, code or a number may stand."""
        return not self.is_summary and bool(re.match(r"([a-z]{2,}|a)(['-][a-z]+)*[\s,;:.]", self.text))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """The line of what has a docstring, and the docstring, also an empty one; and what is said below variables."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found is not None:
                yield getattr(node, "lineno", 1), found
            for one, below in pairwise(node.body):
                text = getattr(getattr(below, "value", None), "value", None)
                if (
                    isinstance(one, ast.Assign | ast.AnnAssign)
                    and isinstance(below, ast.Expr)
                    and isinstance(text, str)
                ):
                    yield one.lineno, text


def said_in(source: str, name: str = "") -> Iterator[Said]:
    for line, text in docstrings(source):
        where = f"{name}:{line}"
        yield Said(where, text.partition("\n")[0], True)
        yield from (Said(where, entry, False) for entry in entries(text))


def entries(docstring: str) -> Iterator[str]:
    """What a docstring says of each argument, attribute, exception and result."""
    section, begun = "", False
    for line in docstring.split("\n"):
        if line and not line.startswith(" "):
            found = SECTION.fullmatch(line)
            section, begun = (found[1] if found else ""), False
        elif section and re.match(r" {4}\S", line):
            named = NAMED.match(line[4:])
            if section in ("Returns", "Yields"):
                if not begun:
                    yield line.strip()
            elif named:
                yield named[1]
            begun = True


@cache
def language_of(room: str) -> list[Said]:
    place = PACKAGE / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [said for path in files for said in said_in(path.read_text(), str(path.relative_to(PACKAGE)))]


ROOMS = sorted({room_of(path) for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_are_whole_phrases(room: str) -> None:
    found = [said for said in language_of(room) if said.is_fragment]
    told = "\n".join(f"{said.where}: {said.text}" for said in found)
    assert not found, f"name what is spoken of, as in 'Number of outer steps.':\n{told}"


@pytest.mark.parametrize("room", ROOMS)
def test_entries_begin_with_a_capital_letter(room: str) -> None:
    found = [said for said in language_of(room) if said.is_small]
    told = "\n".join(f"{said.where}: {said.text}" for said in found)
    assert not found, f"begin with a capital letter:\n{told}"


def test_no_docstring_is_empty() -> None:
    empty = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        for line, text in docstrings(path.read_text())
        if not text.strip()
    ]
    assert not empty


EXAMPLE = '''
MOST = 3
"""Of runs."""

def train(run, steps, x, y):
    """Of a run.

    Args:
        run: of the run; a long entry that
            of course goes on.
        steps: Number of steps.
        x: [n, 2] inputs.
        y: by-products.
        own: in its own words: of something.

    Returns:
        The result
        of it.

    Raises:
        InputError: for nothing.
    """
'''


def test_what_counts_as_a_fragment() -> None:
    said = list(said_in(EXAMPLE))
    assert Counter(one.is_fragment for one in said) == {True: 5, False: 4}
    assert [one.text for one in said if one.is_fragment] == [
        "Of runs.",
        "Of a run.",
        "of the run; a long entry that",
        "in its own words: of something.",
        "for nothing.",
    ]
    assert [one.text for one in said if one.is_small] == [
        "of the run; a long entry that",
        "by-products.",
        "in its own words: of something.",
        "for nothing.",
    ]
