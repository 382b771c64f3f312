"""The figures of README.md are those of the pages that were measured."""

import re

import pytest

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text()
MEASURED = (ROOT / "docs" / "performance.md").read_text()


def cells(text: str, begin: str) -> list[str]:
    """Of the first row of a table that begins with these words."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {begin}"))
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


def measured(case: str) -> dict[str, float]:
    """How many times as long as metaray the others take, by name."""
    head = next(line for line in MEASURED.splitlines() if "learn2learn / it" in line)
    names = [cell.strip().removesuffix(" / it") for cell in head.strip("|").split("|")]
    found = {}
    for name, cell in zip(names, cells(MEASURED, case), strict=True):
        if number := re.match(r"\d+\.\d+", cell):
            found[name] = float(number[0])
    return found


@pytest.mark.parametrize(
    ("row", "case"), [("time of a MAML step", "MAML 1 step"), ("the same, 5 inner steps", "MAML 5 steps")]
)
def test_speed(row: str, case: str) -> None:
    said = [float(number[0]) for cell in cells(README, row)[2:6] if (number := re.match(r"\d+\.\d+", cell))]
    now = measured(case)
    assert said == pytest.approx([now[name] for name in ("learn2learn", "higher", "torchopt", "by hand")], rel=0.1)
