import pytest

from metaray.data.text_encoding import decoded, halves, is_blank
from metaray.errors import InputError


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_says_how_it_is_written_needs_no_name(written: str) -> None:
    assert decoded("Straße".encode(written), "a.csv", None) == "Straße"


def test_another_encoding_is_named_or_asked_for() -> None:
    raw = "Straße".encode("cp1252")
    assert decoded(raw, "a.csv", "cp1252") == "Straße"
    with pytest.raises(InputError, match="a.csv: not a text in UTF-8; --encoding names another, for instance cp1252"):
        decoded(raw, "a.csv", None)
    with pytest.raises(InputError, match="a.csv: not a text in ascii"):
        decoded(raw, "a.csv", "ascii")


@pytest.mark.parametrize("name", ["nothing-known", "base64", ""])
def test_what_is_no_encoding_is_refused_by_name(name: str) -> None:
    for raw in (b"plain", "Stra\u00dfe".encode("cp1252")):
        with pytest.raises(InputError, match=f"--encoding '{name}': no encoding of text"):
            decoded(raw, "a.csv", name)


def test_utf_16_that_does_not_say_so() -> None:
    """Its bytes are UTF-8, too: of letters with NUL between them."""
    assert decoded("plain".encode("utf-16-le"), "a.csv", "utf-16-le") == "plain"
    assert decoded(b"with\0NUL", "a.csv", None) == "with\0NUL"


def test_blank_texts_and_halves_of_letters() -> None:
    assert all(map(is_blank, ("", " \t\xa0", "\u200b", "\ufeff\n", "\x00\x01", "\xad")))
    assert not any(map(is_blank, ("a", "\u200b.", "\u0301", "\U0001f3b5")))
    assert halves("a\ud800") and not any(map(halves, ("", "a", "\xe9", "\U0001f3b5")))
