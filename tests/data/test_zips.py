"""Zip archives as the archivers of this world write them."""

import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from metaray.data.archives import open_tree
from metaray.errors import InputError


def zip_of(path: Path, *members: tuple[bytes, bytes, bytes]) -> Path:
    """A zip with these raw names, contents and extra fields, none marked as UTF-8."""
    body, directory = b"", b""
    for name, content, extra in members:
        sizes = struct.pack("<LLLHH", zlib.crc32(content), len(content), len(content), len(name), len(extra))
        header = struct.pack("<HHHHH", 20, 0, 0, 0, 0)
        place = struct.pack("<HHHLL", 0, 0, 0, 0, len(body))
        body += b"PK\3\4" + header + sizes + name + extra + content
        directory += b"PK\1\2" + struct.pack("<H", 20) + header + sizes + place + name + extra
    end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    return path


def names_of(path: Path, encoding: str | None = None) -> list[str]:
    with open_tree(path, encoding) as tree:
        for name in tree.names:
            assert tree.read(name) == b"x"
        return tree.names


def test_a_zip_of_windows_with_backslashes(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", (b"cat\\1.png", b"x", b""), (b"cat\\", b"", b""), (b"dog/2.png", b"x", b""))
    assert names_of(path) == ["cat/1.png", "dog/2.png"]


def test_utf_8_that_is_not_marked_so(tmp_path: Path) -> None:
    mac = "cafe\u0301/1.png".encode()  # as macOS writes it
    assert names_of(zip_of(tmp_path / "x.zip", (mac, b"x", b""))) == ["caf\u00e9/1.png"]


def test_another_encoding_is_said_and_can_be_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", ("caf\u00e9/1.png".encode("cp1252"), b"x", b""), (b"dog/1.png", b"x", b""))
    with open_tree(path) as tree:
        assert tree.names == ["caf\u0398/1.png", "dog/1.png"]
        assert tree.read(tree.names[0]) == b"x"
        (note,) = tree.notes
        assert "1 name in the archive not in UTF-8, read as cp437, for instance 'caf\u0398/1.png'" in note
    assert names_of(path, "cp1252") == ["caf\u00e9/1.png", "dog/1.png"]
    with open_tree(path, "cp1252") as tree:
        assert tree.notes == ()
    with pytest.raises(InputError, match=r"caf\\xe9/1.png' is not in the encoding 'ascii'"):
        names_of(path, "ascii")
    for wrong in ("latin-99", "hex"):
        with pytest.raises(InputError, match=f"--encoding '{wrong}': no encoding of text"):
            names_of(path, wrong)


def test_half_a_letter_is_no_separator(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", ("\u8868/1.png".encode("cp932"), b"x", b""))  # holds the byte of a backslash
    with pytest.raises(InputError, match="not in UTF-8, and holds a backslash or half of a letter; give --encoding"):
        names_of(path)
    assert names_of(path, "cp932") == ["\u8868/1.png"]


def test_the_name_in_the_unicode_field_wins(tmp_path: Path) -> None:
    raw, name = b"caf?/1.png", "caf\u00e9/1.png".encode()
    value = struct.pack("<BL", 1, zlib.crc32(raw)) + name
    extra = struct.pack("<HH", 0x7075, len(value)) + value
    assert names_of(zip_of(tmp_path / "x.zip", (raw, b"x", extra))) == ["caf\u00e9/1.png"]
    stale = struct.pack("<HH", 0x7075, len(value)) + struct.pack("<BL", 1, 7) + name
    assert names_of(zip_of(tmp_path / "y.zip", (raw, b"x", stale))) == ["caf?/1.png"]


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", (b"a/1.png", b"x", b""), (b"./a/1.png", b"x", b""))
    with pytest.raises(InputError, match="two of its files are called 'a/1.png'"):
        names_of(path)


def test_encrypted_members_links_and_nul_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    encrypted = zip_of(tmp_path / "x.zip", (b"a/1.png", b"x", b""))
    raw = encrypted.read_bytes()
    at = raw.index(b"PK\1\2") + 8
    encrypted.write_bytes(raw[:at] + b"\1" + raw[at + 1 :])
    with pytest.raises(InputError, match=r"x\.zip: refused: its member 'a/1.png' is encrypted"):
        names_of(encrypted)
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        link = zipfile.ZipInfo("a/1.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="its member 'a/1.png' is a symbolic link"):
        names_of(tmp_path / "y.zip")
    with pytest.raises(InputError, match="has a NUL in its name"):
        names_of(zip_of(tmp_path / "z.zip", (b"a/1.png\0.txt", b"x", b"")))


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", (b"./a/1.png", b"x", b""))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2") + 24
    raw[at : at + 4] = struct.pack("<L", 1 << 29)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="refused: a file of 536870912 bytes"):
        names_of(path)
    overlapping = zip_of(tmp_path / "y.zip", (b"a/1.png", b"x" * 9000, b""))
    raw = bytearray(overlapping.read_bytes())
    directory = raw.index(b"PK\1\2")
    entry, end = raw[directory:-22], raw[-22:]
    other = entry.replace(b"a/1.png", b"a/2.png")
    end[8:12], end[12:16] = struct.pack("<HH", 2, 2), struct.pack("<L", 2 * len(entry))
    overlapping.write_bytes(raw[:directory] + entry + other + end)
    with pytest.raises(InputError, match="its members overlap"):
        names_of(overlapping)
