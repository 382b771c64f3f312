import pytest

from metaray.data.text_encoding import decoded
from metaray.errors import InputError


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_says_how_it_is_written_needs_no_name(written: str) -> None:
    assert decoded("Straße".encode(written), "a.csv", None) == "Straße"


def test_another_encoding_is_named_or_asked_for() -> None:
    raw = "Straße".encode("cp1252")
    assert decoded(raw, "a.csv", "cp1252") == "Straße"
    with pytest.raises(InputError, match="a.csv: not a text in UTF-8; --encoding names another, for instance cp1252"):
        decoded(raw, "a.csv", None)
    with pytest.raises(InputError, match="a.csv: not a text in ascii"):
        decoded(raw, "a.csv", "ascii")
