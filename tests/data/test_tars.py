"""Tar archives, plain and compressed."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.data import tars
from metaray.data.archives import open_tree
from metaray.errors import InputError

Fill = Callable[[tarfile.TarFile], None]


def tar_of(path: Path, mode: str, **files: bytes) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            add(archive, name.replace("__", "/"), content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, "a/1.png"
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tar.bz2", "w:bz2"), ("x", "w:xz")]
)
def test_tars_are_read_like_folders(tmp_path: Path, name: str, mode: str) -> None:
    source = tmp_path / "source"
    for file in ("b/2.png", "a/1.png", "a/.hidden", "__MACOSX/x"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(file.encode())
    with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
        archive.add(source, ".")  # as `tar cf x.tar .` does
    with open_tree(tmp_path / name) as tree:
        assert tree.names == ["a/1.png", "b/2.png"]
        assert [tree.read(file) for file in reversed(tree.names)] == [b"b/2.png", b"a/1.png"]
        assert tree.clutter == ["__MACOSX", "a/.hidden"]
        assert tree.where("a/1.png") == f"{tmp_path / name}/a/1.png"


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "a\\..\\..\\x"])
def test_members_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, name)
    with pytest.raises(InputError, match="refused: its member .* leads out"), open_tree(tmp_path / "x.tar"):
        pass


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "a/1.png", b"x")
        add(archive, "a/2.png", kind=kind)
    with (
        pytest.raises(InputError, match=r"x\.tar: refused: its member 'a/2.png' is a link, a device"),
        open_tree(tmp_path / "x.tar"),
    ):
        pass


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "a/1.png", b"x")
        add(archive, "./a/1.png", b"y")
    with pytest.raises(InputError, match="two of its files are called 'a/1.png'"), open_tree(tmp_path / "x.tar"):
        pass


def test_names_in_another_encoding(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="cp1252") as archive:
        add(archive, "caf\u00e9/1.png", b"x")
    with (
        pytest.raises(InputError, match="not in UTF-8; rename it, or .* give --encoding"),
        open_tree(tmp_path / "x.tar"),
    ):
        pass
    with open_tree(tmp_path / "x.tar", "cp1252") as tree:
        assert tree.names == ["caf\u00e9/1.png"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_cut_archive_never_passes_for_a_smaller_one(tmp_path: Path, mode: str) -> None:
    path = tar_of(tmp_path / "x.tar", mode, a__1=b"x" * 600, a__2=b"y" * 600, a__3=b"z" * 600)
    whole = path.read_bytes()
    for size in range(0, 3 * 1536 + 1, 512) if mode == "w" else (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"x\.tar: "), open_tree(path):
            pass


def test_a_damaged_header_and_several_archives_in_one_file(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", "w", a__1=b"x", a__2=b"y", a__3=b"z")
    whole = path.read_bytes()
    path.write_bytes(whole[:1030] + b"damage" + whole[1036:])  # in the second header
    with pytest.raises(InputError, match="a damaged tar archive, or several"), open_tree(path):
        pass
    path.write_bytes(whole + tar_of(tmp_path / "y.tar", "w", b__1=b"x").read_bytes())
    with pytest.raises(InputError, match="a damaged tar archive, or several in one file"), open_tree(path):
        pass


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MOST_UNPACKED_BYTES", 1 << 16)
    path = tar_of(tmp_path / "x.tar.bz2", "w:bz2", a__1=bytes(1 << 20))
    with pytest.raises(InputError, match="refused: it unpacks to more than 65536 bytes"), open_tree(path):
        pass
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("a/1.png")
        member.size = 1 << 40
        archive.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(InputError, match=r"x\.tar"), open_tree(tmp_path / "x.tar"):
        pass


def test_compressed_but_no_tar(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "x.gz").write_bytes(gzip.compress(b"text"))
    with pytest.raises(InputError, match="not a readable zip or tar archive"), open_tree(tmp_path / "x.gz"):
        pass
