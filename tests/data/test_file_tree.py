"""Files under a folder."""

import os
import unicodedata
from pathlib import Path

import pytest

from metaray.data import file_tree
from metaray.data.file_tree import FileTree, folder_tree
from metaray.errors import InputError


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_clutter_and_empty_folders_are_known_but_no_files(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "a/.DS_Store", ".git/x/y", "b/Thumbs.db", "__MACOSX/a/._1.png")
    (tmp_path / "c" / "d").mkdir(parents=True)
    tree = folder_tree(tmp_path)
    assert tree.names == ["a/1.png"]
    assert tree.clutter == [".git", "__MACOSX", "a/.DS_Store", "b/Thumbs.db"]
    assert tree.empty == ["b", "c"]


def test_a_folder_of_macos_is_read_by_its_usual_spelling(tmp_path: Path) -> None:
    write(tmp_path, unicodedata.normalize("NFD", "caf\u00e9/1.png"), "caf\u00e9/2.png")
    tree = folder_tree(tmp_path)
    assert tree.names == ["caf\u00e9/1.png", "caf\u00e9/2.png"]
    assert tree.read("caf\u00e9/1.png").decode() == unicodedata.normalize("NFD", "caf\u00e9/1.png")


def test_two_files_of_one_name_in_two_spellings_are_refused(tmp_path: Path) -> None:
    write(tmp_path, unicodedata.normalize("NFD", "caf\u00e9/1.png"), "caf\u00e9/1.png")
    with pytest.raises(InputError, match="two of its files are called 'caf\u00e9/1.png'"):
        folder_tree(tmp_path)


def test_names_that_cannot_be_written_down_are_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9") / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match="not in UTF-8"):
        folder_tree(tmp_path)


def test_what_is_no_file_is_refused_when_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    write(tmp_path, "large.png")
    tree = folder_tree(tmp_path)
    with pytest.raises(InputError, match=r"pipe\.png: neither a file nor a folder"):
        tree.read("pipe.png")
    with pytest.raises(InputError, match=r"gone\.png: can't be read: No such file"):
        tree.read("gone.png")
    monkeypatch.setattr(file_tree, "MAX_FILE_BYTES", 4)
    with pytest.raises(InputError, match=r"large\.png: refused: a file of 9 bytes \(at most 4\)"):
        tree.read("large.png")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.png", "locked/1.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="locked: can't be read: Permission denied"):
        folder_tree(tmp_path)


def test_a_tree_of_anything() -> None:
    tree = FileTree(Path("x"), [("./b//1", lambda: b"one")], ["b", "e/f"], ("a note",))
    assert (tree.names, tree.empty, tree.notes, tree.where("b/1")) == (["b/1"], ["e/f"], ("a note",), "x/b/1")
    assert tree.read("b/1") == b"one"
