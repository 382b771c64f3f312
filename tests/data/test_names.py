"""Names of files and folders."""

import unicodedata

import pytest

from metaray.data.names import (
    check_characters,
    clean_path,
    clutter_in,
    counted,
    is_clutter,
    is_image_name,
    leads_out,
    one_spelling,
    some,
)
from metaray.errors import InputError


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._cat.png", "Thumbs.db", "THUMBS.DB", "__MACOSX", "desktop.ini", "@eaDir", ".ipynb_checkpoints"],
)
def test_clutter(name: str) -> None:
    assert is_clutter(name)
    assert clutter_in(f"cat/{name}/1.png") == f"cat/{name}"


@pytest.mark.parametrize("name", ["cat", "thumbs", "a.b", "_x", "eaDir", "thumbs.db.png"])
def test_no_clutter(name: str) -> None:
    assert not is_clutter(name)
    assert clutter_in(f"{name}/1.png") == ""


def test_paths_are_cleaned_and_spelled_in_one_way() -> None:
    assert clean_path("./a//b/./c.png") == "a/b/c.png"
    assert clean_path(".") == ""
    mac = unicodedata.normalize("NFD", "caf\u00e9")
    assert mac != "caf\u00e9" == one_spelling(mac) == clean_path(mac)


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "C:\\a", "C:a", "a\\..\\b", "\\\\server\\share\\a"])
def test_paths_that_lead_out(path: str) -> None:
    assert leads_out(path)


@pytest.mark.parametrize("path", ["a/b", "..a/b", "a..b", "a/...", "long:b/c"])
def test_paths_that_stay_inside(path: str) -> None:
    assert not leads_out(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\nb", r"here: the name 'a\\nb' holds the control character '\\n'"),
        ("\x1b[2J", "control character"),
        ("a\u2028b", "control character"),
        ("caf\udce9", r"here: the name 'caf\\udce9' is not in UTF-8"),
    ],
)
def test_names_that_cannot_be_written_down(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_characters(name, "here")


def test_names_of_every_language_can() -> None:
    for name in ("猫", "ёлка", "e\u0301", "\u0915\u094d\u200d\u0937", "a b", "\U0001f408"):
        check_characters(name, "here")


def test_image_names() -> None:
    assert is_image_name("a/b.JPEG") and is_image_name("x.tif")
    assert not is_image_name("png") and not is_image_name("a.txt") and not is_image_name(".png")


def test_how_messages_count_and_list() -> None:
    assert counted(1, "file") == "1 file" and counted(2, "query", "queries") == "2 queries"
    assert some(["a", "b", "c", "d"]) == "a, b, c, ..." and some(["a"]) == "a"
