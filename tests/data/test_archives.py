from pathlib import Path

import pytest

from metaray.data.archives import open_tree
from metaray.errors import InputError
from tests.data.conftest import MakeZip


def test_folder_and_zip_read_alike(tmp_path: Path, make_zip: MakeZip) -> None:
    files = {"b/2.png": b"two", "a/1.png": b"one", "a/.hidden": b"", "__MACOSX/a/1.png": b"", "a/Thumbs.db": b""}
    for name, content in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(content)
    for path in (tmp_path / "tree", make_zip("tree.zip", files)):
        with open_tree(path) as tree:
            assert tree.names == ["a/1.png", "b/2.png"]
            assert tree.read("b/2.png") == b"two"
            assert tree.where("a/1.png") == f"{path}/a/1.png"


@pytest.mark.parametrize("member", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "a\\..\\..\\x"])
def test_traversal_is_refused(make_zip: MakeZip, member: str) -> None:
    path = make_zip("evil.zip", {"a/1.png": b"", member: b""})
    with (
        pytest.raises(InputError, match=r"evil\.zip: refused: its member .* leads out of the archive"),
        open_tree(path),
    ):
        pass


def test_damaged_member_is_named(make_zip: MakeZip) -> None:
    path = make_zip("damaged.zip", {"a/1.png": b"some content"})
    path.write_bytes(path.read_bytes().replace(b"some content", b"same content"))
    with open_tree(path) as tree, pytest.raises(InputError, match=r"damaged\.zip/a/1\.png"):
        tree.read("a/1.png")


def test_neither_folder_nor_zip(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text")
    with (
        pytest.raises(InputError, match=r"text\.zip: not a folder, and not a readable zip"),
        open_tree(tmp_path / "text.zip"),
    ):
        pass
    with pytest.raises(InputError, match="no such folder or zip"), open_tree(tmp_path / "none"):
        pass


def test_circular_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "loop").symlink_to(tmp_path / "tree")
    with pytest.raises(InputError, match="symbolic link"), open_tree(tmp_path / "tree"):
        pass
