import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from metaray.data import store_file
from metaray.data.draws import Split
from metaray.data.groups import ClassGroups
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import METADATA_KEY, StoreMeta, check_writable, read_store, write_store
from metaray.errors import InputError
from tests.data.conftest import MakeStore

SPLITS = {"meta-train": [0, 1], "meta-val": [2], "meta-test": [3]}
PREPROCESSING = ImagePreprocessing(height=3, width=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.sampled_from(["uint8", "float32", "int64"]),
    hnp.array_shapes(max_dims=3, max_side=4),
    st.data(),
)
def test_round_trip(tmp_path: Path, counts: list[int], dtype: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    images = data.draw(hnp.arrays(dtype, (sum(counts), *shape)))
    path = tmp_path / "store.arrow"
    names = [f"c{i}" for i in range(len(counts))]
    schemes: dict[str, dict[Split, list[int]]] = {"default": {"meta-train": list(range(len(counts)))}}
    write_store(
        path,
        examples=images,
        counts=counts,
        class_names=names,
        schemes=schemes,
        preprocessing=PREPROCESSING,
        origin={"a": "b"},
    )
    store = read_store(path, verify=True)
    assert store.examples.dtype == images.dtype and np.array_equal(store.examples.view(np.uint8), images.view(np.uint8))
    assert store.meta.class_names == tuple(names) and store.meta.counts == tuple(counts)
    assert np.diff(store.offsets).tolist() == counts
    assert store.meta.preprocessing == PREPROCESSING and store.meta.origin == {"a": "b"}


def test_images_are_a_view_of_the_file(make_store: MakeStore) -> None:
    store = read_store(make_store([2, 3, 1, 2], SPLITS))
    assert not store.examples.flags.owndata and not store.examples.flags.writeable


def test_fingerprint_covers_contents_and_not_the_origin(make_store: MakeStore, tmp_path: Path) -> None:
    first = read_store(make_store([2, 3, 1, 2], SPLITS))
    same: dict[str, Any] = {
        "counts": first.meta.counts,
        "class_names": first.meta.class_names,
        "schemes": first.meta.schemes,
        "preprocessing": first.meta.preprocessing,
    }
    path = tmp_path / "other.arrow"
    write_store(path, examples=first.examples, origin={"importer": "another"}, **same)
    assert read_store(path).meta.fingerprint == first.meta.fingerprint
    changed = first.examples.copy()
    changed[0, 0, 0, 0] ^= 1
    write_store(path, examples=changed, origin={}, **same)
    assert read_store(path).meta.fingerprint != first.meta.fingerprint


def test_flipped_bit_is_found_by_verify(make_store: MakeStore) -> None:
    path = make_store([2, 3, 1, 2], SPLITS)
    raw = bytearray(path.read_bytes())
    row = read_store(path).examples[5].tobytes()
    raw[raw.index(row) + 1] ^= 1
    path.write_bytes(raw)
    read_store(path)
    with pytest.raises(InputError, match=r"store\.arrow: damaged"):
        read_store(path, verify=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(make_store: MakeStore, share: float) -> None:
    path = make_store([2, 3, 1, 2], SPLITS)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match=r"store\.arrow: not a class store, or a truncated one"):
        read_store(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.arrow: no such class store"):
        read_store(tmp_path / "none.arrow")
    with pytest.raises(InputError, match="it is a folder"):
        read_store(tmp_path)


Change = Callable[[dict[bytes, bytes]], Any]


def rewrite(path: Path, change: Change) -> None:
    """Write the file again with changed metadata."""
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    metadata = dict(table.schema.metadata)
    change(metadata)
    batch = pa.record_batch([column.combine_chunks() for column in table.columns], schema=table.schema)
    batch = batch.replace_schema_metadata(metadata)
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def edit(**values: Any) -> Change:
    def change(metadata: dict[bytes, bytes]) -> None:
        metadata[METADATA_KEY] = json.dumps(json.loads(metadata[METADATA_KEY]) | values).encode()

    return change


def text(value: str) -> Change:
    return lambda metadata: metadata.update({METADATA_KEY: value.encode()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata.clear(), "an Arrow file, but not a class store of metaray"),
        (lambda metadata: metadata.update({METADATA_KEY: b"[]"}), "metadata is not a JSON object"),
        (edit(version=99), "format version 99, but this metaray reads version 1"),
        (edit(counts=[2, 3, 1, 1]), "don't fit together"),
        (edit(counts=[3, 2, 1, 2]), "not sorted by class"),
        (edit(dtype="float32"), "column types"),
        (edit(feature_shape=[2, 2]), "column types"),
        (edit(surprise=1), "unknown key 'surprise'"),
        (edit(class_names=["a", "b", "a", "c"]), "two classes are named 'a'"),
        (edit(schemes={"s": {"meta-train": [0, 1], "meta-test": [1]}}), "meta-train and meta-test overlap .* 'class1'"),
        (edit(schemes={"s": {"meta-train": [4]}}), "lists class id 4"),
        (edit(schemes={"s": {"meta-train": [10**30]}}), "lists class id 10{30}"),
        (edit(schemes=[]), "schemes: Input should be a valid dictionary"),
        (edit(dtype="no such"), "column types"),
        (edit(dtype="object"), "column types"),
        (edit(dtype="int32,int32"), "column types"),
        (edit(feature_shape=[2**40, 2**40]), "column types"),
        (edit(feature_shape=[-1, 3]), "is empty"),
        (edit(counts=[10**30, 1, 1, 1]), "don't fit together"),
        (edit(counts=["a"]), "counts.0: Input should be a valid integer"),
        (edit(class_names=[3, 4, 5, 6]), "class_names.0: Input should be a valid string"),
        (edit(preprocessing=None), "preprocessing: "),
        (text('{"version": 1, "version": 1}'), "damaged: .*the key 'version' comes twice"),
        (text('{"version":' * 5000), "damaged: .*nested more than"),
        (text('{"version": ' + "9" * 5000 + "}"), "damaged: .*an integer of 5000 digits"),
        (text(r'{"version": "\u0000"}'), "damaged: .*a NUL character"),
        (text('{"version": 1'), "damaged: .*not JSON"),
    ],
)
def test_foreign_and_inconsistent_files(make_store: MakeStore, change: Change, message: str) -> None:
    path = make_store([2, 3, 1, 2], SPLITS)
    rewrite(path, change)
    with pytest.raises(InputError, match=rf"store\.arrow.*{message}"):
        read_store(path)


def test_overlapping_splits_are_refused_and_nothing_is_left(make_store: MakeStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'default': meta-train and meta-val overlap in 1 classes: 'class1'"):
        make_store([2, 3, 1, 2], {"meta-train": [0, 1], "meta-val": [1, 2]})
    with pytest.raises(InputError, match="lists 'class0' twice"):
        make_store([2, 3], {"meta-train": [0, 0]})
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't write"):
        check_writable(tmp_path / "file" / "store.arrow")
    with pytest.raises(InputError, match="it is a folder"):
        check_writable(tmp_path)
    check_writable(tmp_path / "new" / "folder" / "store.arrow")
    assert not (tmp_path / "new").exists()


def test_the_fingerprint_of_a_store_without_a_range_is_that_of_before_there_were_ranges(tmp_path: Path) -> None:
    images = np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2)
    scheme = {"default": {"meta-train": [0], "meta-test": [1]}}
    given: dict[str, Any] = {
        "examples": images,
        "counts": [2, 2],
        "class_names": ["a", "b"],
        "schemes": scheme,
        "origin": {},
    }
    preprocessing = ImagePreprocessing(height=2, width=2, invert=True)
    write_store(tmp_path / "plain.arrow", preprocessing=preprocessing, **given)
    known = "0167920d61fcd7f16b76657cea4e8d25502bfbab04e4121368140e83795345bd"
    assert read_store(tmp_path / "plain.arrow", verify=True).meta.fingerprint == known
    ranged = ImagePreprocessing(height=2, width=2, invert=True, value_range=(0, 4095))
    write_store(tmp_path / "ranged.arrow", preprocessing=ranged, **given)
    meta = read_store(tmp_path / "ranged.arrow", verify=True).meta
    assert meta.preprocessing == ranged and meta.fingerprint != known


def test_what_does_not_read_back_is_not_left(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store_file._write_arrow

    def write(path: Path, images: NDArray[np.uint8], meta: StoreMeta, raw: None) -> None:
        whole(path, images ^ 1, meta, raw)

    monkeypatch.setattr(store_file, "_write_arrow", write)
    with pytest.raises(
        InputError, match=r"store\.arrow: what was written does not read back, so nothing is left of it"
    ):
        make_store([2, 3, 1, 2], SPLITS)
    assert list(tmp_path.iterdir()) == []


def test_many_names_and_ids_that_come_twice_are_found_at_once() -> None:
    """In time that grows with their number, not with its square."""
    ids = [*range(200_000), 199_999]
    with pytest.raises(InputError, match="lists '199999' twice"):
        store_file.check_disjoint({"meta-train": ids}, [str(number) for number in range(200_000)], where="x")


def test_groups_are_kept_and_are_no_other_data(make_store: MakeStore) -> None:
    plain = read_store(make_store([2, 3, 1, 2], SPLITS, name="plain.arrow"), verify=True).meta
    grouped = read_store(make_store([2, 3, 1, 2], SPLITS, groups=["a", "b", "a", "c"]), verify=True).meta
    assert "groups" not in plain.model_dump(mode="json") and plain.groups is None
    assert grouped.groups == ClassGroups.of(["a", "b", "a", "c"])
    assert grouped.fingerprint == plain.fingerprint


def test_groups_that_do_not_fit(make_store: MakeStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 groups for 4 classes: each class has one"):
        make_store([2, 3, 1, 2], SPLITS, groups=["a", "b", "a"])
    assert not list(tmp_path.iterdir())
    path = make_store([2, 3, 1, 2], SPLITS, groups=["a", "b", "a", "c"])
    groups = ClassGroups.of(["a", "b", "a", "c"]).model_dump() | {"names": ["a", "b", "a", "d"]}
    rewrite(path, edit(groups=groups))
    with pytest.raises(InputError, match=r"store\.arrow: groups: damaged"):
        read_store(path)
