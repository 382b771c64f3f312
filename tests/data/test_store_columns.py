"""Stores of ragged examples: what is written is read without a copy, and damage is refused by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from torch import Tensor

from metaray.data import ClassStore
from metaray.data.class_store import SplitSummary
from metaray.data.draws import Draws
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.preprocessing import Compact, Preprocessing, mask_of
from metaray.data.ragged import LENGTHS, VALUES, Ragged, joined
from metaray.data.store_columns import column_of, column_type, examples_in
from metaray.data.store_file import METADATA_KEY, read_store, write_store
from metaray.errors import InputError


class Points(Preprocessing):
    """Sets of points of a user's own."""

    kind: ClassVar[str] = "points"
    compared: ClassVar[str | None] = None
    size: int = 2

    @property
    def feature_shape(self) -> tuple[None, int]:
        return (None, self.size)

    def normalize(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"points": x[VALUES], "mask": mask_of(x)}


def rows(rest: tuple[int, ...] = ()) -> Ragged:
    generator = np.random.default_rng(0)
    return joined([generator.standard_normal((n, *rest)).astype(np.float32) for n in (2, 9, 1, 4, 30, 8)], "row")


def write(path: Path, examples: Any, preprocessing: Preprocessing) -> Path:
    write_store(
        path,
        examples=examples,
        counts=[2, 4],
        class_names=["a", "b"],
        schemes={"default": {"meta-train": [0, 1]}},
        preprocessing=preprocessing,
        origin={},
    )
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "points.arrow", rows((2,)), Points())


@pytest.mark.parametrize("rest", [(), (2,), (2, 3)])
def test_a_column_and_back(rest: tuple[int, ...]) -> None:
    examples, shape = rows(rest), (None, *rest)
    column = column_of(examples)
    assert column.type == column_type(shape, "float32") and len(column) == 6
    found = examples_in(column, shape)
    assert np.array_equal(found.values, examples.values) and np.array_equal(found.offsets, examples.offsets)
    assert column_type((None, 3), "no type") is None


def test_what_is_written_is_read_without_a_copy(path: Path) -> None:
    found = read_store(path, verify=True)
    assert found.meta.feature_shape == (None, 2) and found.meta.dtype == "float32"
    assert not found.examples.values.flags.owndata and not found.examples.values.flags.writeable
    assert np.array_equal(found.examples.values, rows((2,)).values) and len(found.examples) == 6


def test_a_fingerprint_covers_where_examples_begin(path: Path, tmp_path: Path) -> None:
    whole = rows((2,))
    other = Ragged(whole.values, whole.offsets + np.array([0, 1, 0, 0, 0, 0, 0]))
    again = write(tmp_path / "other.arrow", other, Points())
    assert read_store(path).meta.fingerprint != read_store(again).meta.fingerprint
    assert write(tmp_path / "same.arrow", rows((2,)), Points()).read_bytes() == path.read_bytes()


def test_tasks_of_ragged_examples(path: Path) -> None:
    source = ClassStore(path=str(path))
    assert source.preprocessing == Points() and source.summary("meta-train") == SplitSummary(2, 6, 2, 3.0, 4)
    lengths = set()
    for index in range(20):
        task = source.sample_task(Draws(0, "meta-train", index), "meta-train", EpisodeSpec(ways=2, shots=1, queries=1))
        for x in (task.support.x, task.query.x):
            assert isinstance(x, dict) and x.keys() == {VALUES, LENGTHS} and x[VALUES].shape[2:] == (2,)
        both = np.concatenate([task.support.x[LENGTHS], task.query.x[LENGTHS]])
        assert task.support.x[VALUES].shape == task.query.x[VALUES].shape
        lengths.add((task.support.x[VALUES].shape[1], int(both.max())))
    assert {padded for padded, _ in lengths} == {16, 32} and all(padded >= longest for padded, longest in lengths)
    assert source.examples(1)[LENGTHS].tolist() == [1, 4, 30, 8]
    with pytest.raises(InputError, match=r"rotations need square images, but an example has the shape \(any, 2\)"):
        ClassStore(path=str(path), rotations=True).num_classes("meta-train")


def rewritten(path: Path, change: Callable[[Any, dict[str, Any]], Any]) -> Path:
    """The file with another column of examples."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        batch, metadata = reader.get_batch(0), dict(reader.schema.metadata)
        x = change(batch.column(0), metadata)
        schema = pa.schema([("x", x.type), ("class_id", pa.int32())], metadata)
        with pa.OSFile(f"{path}.new", "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch([x, batch.column(1)], schema=schema))
    return Path(f"{path}.new")


def column(offsets: list[int]) -> Callable[[Any, dict[str, Any]], Any]:
    return lambda x, _: pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), x.values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (column([0, 2, 2, 12, 16, 46, 54]), "damaged: example 1 is empty"),
        (lambda x, _: x.cast(pa.list_(x.type.value_type)), "damaged: column types"),
        (
            lambda x, meta: meta.update({METADATA_KEY: meta[METADATA_KEY].replace(b"[null,2]", b"[null,1]")}) or x,
            r"damaged: column types .* are not those of \(any, 1\) float32",
        ),
        (
            lambda x, meta: meta.update({METADATA_KEY: meta[METADATA_KEY].replace(b"[null,2]", b"[2,null]")}) or x,
            r"of an example's shape only the first axis may differ, not as in \(2, any\)",
        ),
    ],
)
def test_damage_is_refused_by_name(change: Callable[[Any, dict[str, Any]], Any], message: str, path: Path) -> None:
    other = rewritten(path, change)
    with pytest.raises(InputError, match=message):
        read_store(other)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 12, 11, 16, 46, 54], "damaged: example 2 ends before it begins (values 12 to 11)"),
        ([1, 2, 11, 12, 16, 46, 54], "damaged: its examples go from value 1 to 54 of 54"),
        ([0, 2, 11, 12, 16, 46, 53], "damaged: its examples go from value 0 to 53 of 54"),
        (
            [0, 2, 11, 12, 16, 46, 10**9],
            "not a class store, or a truncated one (In column 0: Invalid: Length",
        ),
    ],
)
def test_offsets_that_were_changed(offsets: list[int], message: str, path: Path) -> None:
    raw, right = path.read_bytes(), read_store(path).examples.offsets
    place, wrong = raw.index(right.tobytes()), np.array(offsets, dtype=np.int64).tobytes()
    path.write_bytes(raw[:place] + wrong + raw[place + len(wrong) :])
    with pytest.raises(InputError, match=re.escape(f"points.arrow: {message}")):
        read_store(path)


def test_a_value_that_was_changed(path: Path) -> None:
    raw = path.read_bytes()
    place = raw.index(rows((2,)).values[5].tobytes())
    path.write_bytes(raw[:place] + b"\x00\x00" + raw[place + 2 :])
    read_store(path)
    with pytest.raises(InputError, match="points.arrow: damaged: its examples or their description don't match"):
        read_store(path, verify=True)


def test_a_preprocessing_that_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "points.arrow", rows((2,)), Points(size=3))
    with pytest.raises(InputError, match=re.escape("are float32 of shape (any, 2), but preprocessing 'points' makes")):
        _ = ClassStore(path=str(path)).preprocessing


def test_points_are_read_and_probed() -> None:
    found: Compact = Points().read([[[1, 2]], np.ones((3, 2))])
    assert found[VALUES].shape == (2, 8, 2) and found[LENGTHS].tolist() == [1, 3]
    assert [column.name for column in Points().columns] == ["input"]
    probe = Points().probe(3)
    assert probe[VALUES].dtype == np.float32 and len(set(probe[LENGTHS])) == 3
    with pytest.raises(InputError, match=r"input 1 has the shape \[1, 3\]"):
        Points().read([[[1, 2]], [[1, 2, 3]]])
