"""Support and query folders."""

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from metaray.errors import InputError
from metaray.serving.folders import Labelled, read_queries, read_query, read_support


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), 7).save(path)
    return path


def test_a_folder_per_class_in_natural_order(tmp_path: Path) -> None:
    for name in ("dog/10.png", "dog/2.png", "cat/a.png", "class 10/x.png", "class 9/x.png"):
        picture(tmp_path / name)
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "cat" / ".hidden").write_text("")
    support = read_support(tmp_path)
    assert support.labels == ["cat", "class 9", "class 10", "dog", "dog"]
    assert [path.name for path in support.paths] == ["a.png", "x.png", "x.png", "2.png", "10.png"]


def test_a_flat_folder(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png") for i in range(12)]
    assert read_query(tmp_path) == paths


def test_one_image_is_a_query_by_itself(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert read_query(path) == [path]


def test_what_is_wrong_with_a_support_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing' does not exist"):
        read_support(tmp_path / "missing")
    with pytest.raises(InputError, match="has no class folders"):
        read_support(tmp_path)
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(InputError, match="class folder .*dog' is empty"):
        read_support(tmp_path)
    picture(tmp_path / "dog" / "sub" / "a.png")
    with pytest.raises(InputError, match="dog' holds the folder 'sub'"):
        read_support(tmp_path)
    picture(tmp_path / "stray.png")
    with pytest.raises(InputError, match="stray.png' lies beside the class folders"):
        read_support(tmp_path)


def test_what_is_wrong_with_a_query_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        read_query(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="notes.txt' is not an image"):
        read_query(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="notes.txt' is not a folder"):
        read_support(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="notes.txt' is not an image"):
        read_query(tmp_path)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="cut.png' is not an image that can be read"):
        read_query(tmp_path)


def test_query_in_class_folders_brings_its_labels(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "1.png")
    found = read_query(tmp_path)
    assert isinstance(found, Labelled)
    assert found.labels == ["a", "b"]


def test_clutter_is_passed_over_as_in_an_import(tmp_path: Path) -> None:
    for name in (
        "Thumbs.db",
        "desktop.ini",
        "cat/Thumbs.db",
        "cat/._1.png",
        "cat/@eaDir/1.png",
        "__MACOSX/cat/._1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"clutter")
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.png")
    assert read_support(tmp_path) == ([tmp_path / "cat/1.png", tmp_path / "dog/1.png"], ["cat", "dog"])
    assert read_query(tmp_path / "cat") == [tmp_path / "cat/1.png"]


def test_a_class_is_the_same_in_the_spelling_of_macos(tmp_path: Path) -> None:
    mac = unicodedata.normalize("NFD", "caf\u00e9")
    picture(tmp_path / "support" / "caf\u00e9" / "1.png")
    picture(tmp_path / "support" / "dog" / "1.png")
    picture(tmp_path / "query" / mac / "1.png")
    found = read_query(tmp_path / "query")
    assert isinstance(found, Labelled)
    assert found.labels == ["caf\u00e9"] == read_support(tmp_path / "support").labels[:1]
    assert found.paths == [tmp_path / "query" / mac / "1.png"]


def test_names_that_are_not_utf_8_and_folders_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / os.fsdecode(b"caf\xe9") / "1.png")
    with pytest.raises(InputError, match=r"the name 'caf\\udce9' is not in UTF-8"):
        read_support(tmp_path)

    def refuse(self: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="support folder .* cannot be read: Permission denied"):
        read_support(tmp_path)


def test_several_queries_in_their_order(tmp_path: Path) -> None:
    paths = [picture(tmp_path / name) for name in ("b.png", "flat/2.png", "flat/10.png", "x/cat/a.png", "y/dog/b.png")]
    flat = read_queries([tmp_path / "b.png", tmp_path / "flat"])
    assert flat == paths[:3]
    assert read_queries([tmp_path / "y", tmp_path / "x"]) == Labelled([paths[4], paths[3]], ["dog", "cat"])
    with pytest.raises(InputError, match="x' holds a folder per class, but other queries are images without one"):
        read_queries([tmp_path / "b.png", tmp_path / "x"])
