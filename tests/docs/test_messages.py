"""docs/troubleshooting.md quotes messages as they are."""

import re
from pathlib import Path

import pytest

import metaray
from tests.docs.messages import GAP, occurs, pattern
from tests.docs.pages import ROOT

PACKAGE = Path(metaray.__file__).parent
MESSAGES = re.findall(r"^\*\*`(.+)`\*\*$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def test_there_are_some() -> None:
    assert len(MESSAGES) >= 45 and len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_still_is(message: str) -> None:
    assert occurs(message, PACKAGE), "no text of metaray says so: look for the new wording"


def test_gaps_are_what_is_filled_in() -> None:
    assert pattern("run ... exists with ...; use").search(f"run {GAP} exists with another experiment{GAP}; use")
    assert not pattern("run ... exists").search("run it exists")
    assert not occurs("run ... exists with another experiment...; take another --run name", PACKAGE)
