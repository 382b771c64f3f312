"""Sealed folders."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.errors import InputError
from metaray.manifest import MANIFEST, Damaged, sealed, sealed_json, unsealed, unsealed_json

FILES = {"a.json": b"{}", "b.bin": bytes(range(256))}


@given(st.dictionaries(st.from_regex(r"\A[abc][abc.]*\Z"), st.binary(max_size=50)))
def test_round_trip_and_the_manifest_is_last(files: dict[str, bytes]) -> None:
    kept = sealed(files)
    assert list(kept) == [*files, MANIFEST]
    assert unsealed(kept.__getitem__) == files


def reader(files: dict[str, bytes]):  # type: ignore[no-untyped-def]
    def read(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name]

    return read


@given(name=st.sampled_from(sorted(FILES)), data=st.data())
def test_any_flipped_bit_is_found(name: str, data: st.DataObject) -> None:
    files = sealed(FILES)
    bit = data.draw(st.integers(0, 8 * len(files[name]) - 1))
    changed = bytearray(files[name])
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damaged, match=f"{name} does not match its checksum"):
        unsealed(reader({**files, name: bytes(changed)}))


@pytest.mark.parametrize("name", FILES)
def test_missing_and_truncated(name: str) -> None:
    files = sealed(FILES)
    with pytest.raises(Damaged, match=f"{name} is missing"):
        unsealed(reader({key: value for key, value in files.items() if key != name}))
    with pytest.raises(Damaged, match=rf"{name} has 1 bytes instead of {len(FILES[name])}"):
        unsealed(reader({**files, name: files[name][:1]}))


def test_without_manifest() -> None:
    with pytest.raises(Damaged, match="manifest.json is missing"):
        unsealed(reader(FILES))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}', '{"files": {"a.json": {}}}', '{"files": null}'])
def test_a_manifest_that_is_none(text: str) -> None:
    with pytest.raises(Damaged, match="manifest.json is unreadable"):
        unsealed(reader({**FILES, MANIFEST: text.encode()}))


def test_the_manifest_names_sizes_and_digests() -> None:
    entry = json.loads(sealed(FILES)[MANIFEST])["files"]["a.json"]
    assert entry["size_bytes"] == 2 and len(entry["sha256"]) == 64


@pytest.mark.parametrize("name", ["../state", "/dev/zero", "a/b", "."])
def test_a_manifest_cannot_lead_out_of_its_folder(name: str) -> None:
    entry = {"size_bytes": 0, "sha256": ""}
    manifest = json.dumps({"format": 1, "files": {name: entry}}).encode()
    with pytest.raises(Damaged, match="no plain file name"):
        unsealed(reader({MANIFEST: manifest}))


def test_an_object_is_sealed_whatever_its_order() -> None:
    tree = {"b": [1, 0.1, None], "a": {"2": "x", "10": "y"}}
    text = sealed_json(tree)
    assert unsealed_json(text, where="x") == tree
    assert unsealed_json(json.dumps(dict(reversed(json.loads(text).items()))), where="x") == tree
    with pytest.raises(InputError, match=r"x: damaged: it does not match its checksum \(if it was you who changed it"):
        unsealed_json(text.replace(b"0.1", b"0.2"), where="x")
    assert unsealed_json(json.dumps(tree), where="x") == tree, "of before there were checksums"


def test_one_file_of_a_folder_alone() -> None:
    files = {**sealed(FILES), "b.bin": b"damaged"}
    assert unsealed(reader(files), only="a.json") == {"a.json": FILES["a.json"]}
