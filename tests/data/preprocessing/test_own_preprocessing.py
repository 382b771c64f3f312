"""What a preprocessing of a user's own has without saying so, and what it is told that it must say."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from metaray.data.preprocessing import ImagePreprocessing, Preprocessing, VectorPreprocessing, mask_of
from metaray.data.ragged import LENGTHS, VALUES
from metaray.errors import InputError
from metaray.tasks.cells import number, text

LINE = "line 3"


class Fields(Preprocessing):
    """Says the least."""

    kind: ClassVar[str] = "fields"

    @property
    def feature_shape(self) -> tuple[int, int]:
        return (2, 2)

    def normalize(self, x: Tensor) -> Tensor:
        return x


class Sequences(Fields):
    kind: ClassVar[str] = "sequences"
    dtype: ClassVar[str] = "int64"
    input_word: ClassVar[str] = "sequence"

    @property
    def feature_shape(self) -> Any:
        return (None,)

    def normalize(self, x: Any) -> Any:
        return {"numbers": x[VALUES], "mask": mask_of(x)}


def test_the_least_is_numbers() -> None:
    fields = Fields()
    assert fields.read([[[1, 2], [3, 4]]]).tolist() == [[[1, 2], [3, 4]]] == fields.read([[1, 2], [3, 4]]).tolist()
    assert fields.probe(3).shape == (3, 2, 2) and fields.probe(3).dtype == np.float32
    assert np.array_equal(fields.probe(3), fields.probe(3)) and not np.array_equal(fields.probe(3, 1), fields.probe(3))
    assert [column[:2] for column in fields.columns] == [(f"x{i}", "double") for i in range(4)]
    found = fields.from_cells([["1", "2", "3", "4"]], ["a", "b", "c", "d"], lambda _: LINE)
    assert found.tolist() == [[[1, 2], [3, 4]]]
    with pytest.raises(InputError, match="line 3: c is 'three', not a number"):
        fields.from_cells([["1", "2", "three", "4"]], ["a", "b", "c", "d"], lambda _: LINE)
    assert fields.example_cells(0.5) == [0.5] * 4 and not fields.takes_folders
    assert fields.comparable(torch.ones(3, 2, 2)).shape == (3, 4) and fields.compared == "inputs"


def test_ragged_ones_have_a_column_of_text() -> None:
    sequences = Sequences()
    found = sequences.read([[1, 2, 3], np.array([4])])
    assert found[VALUES].dtype == np.int64 and found[VALUES].shape == (2, 8) and found[LENGTHS].tolist() == [3, 1]
    assert [column[:2] for column in sequences.columns] == [("sequence", "string")]
    assert sequences.from_cells([["a b"]], ["mine"], lambda _: LINE) == ["a b"]
    assert sequences.example_cells(0) == ["sequence 0"]
    x = sequences.normalize({name: torch.from_numpy(part) for name, part in found.items()})
    assert x["mask"].sum(1).tolist() == [3, 1]
    with pytest.raises(InputError, match="'sequences' does not say which int64 numbers are valid examples"):
        sequences.probe(2)
    with pytest.raises(InputError, match="'sequences' does not say how its inputs are compared"):
        sequences.comparable(x)
    with pytest.raises(InputError, match="no sequences given"):
        sequences.read([])


def test_a_mask_of_a_chunk() -> None:
    compact = {VALUES: torch.zeros(2, 3, 8, 5), LENGTHS: torch.tensor([[1, 2, 3], [8, 1, 1]])}
    assert mask_of(compact).shape == (2, 3, 8) and mask_of(compact).sum(-1).tolist() == compact[LENGTHS].tolist()


def test_examples_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"input 1 has the shape \[2\], but must have \(2, 2\)"):
        Fields().packed([np.zeros((2, 2)), np.zeros(2)])
    assert Fields().packed([np.zeros((2, 2))] * 3).dtype == np.float32


def test_texts_one_by_one() -> None:
    assert Sequences().texts("one text") == [("one text", "sequence 0")]
    assert [item for item, _ in Sequences().texts(np.array([["a"], ["b"]]))] == ["a", "b"]
    with pytest.raises(InputError, match="sequence 1 is of type int"):
        Sequences().texts(["a", 1])
    with pytest.raises(InputError, match="sequence 1 is empty"):
        Sequences().texts(["a", " "])


@pytest.mark.parametrize(
    ("cell", "message"),
    [(None, "line 3: text is None, not a text"), (" ", "line 3: text is empty"), (1.0, "not a text")],
)
def test_no_text(cell: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text(cell, "text", LINE)
    assert text("a ", "text", LINE) == "a " and number("1", "x", LINE) == 1


def test_probes_and_columns_of_images_and_vectors() -> None:
    image, vector = ImagePreprocessing(height=4, width=6, mode="RGB"), VectorPreprocessing(size=1)
    assert image.probe(2).shape == (2, 3, 4, 6) and image.probe(2).dtype == image.dtype == "uint8"
    assert [column[:2] for column in image.columns] == [("image", "binary")] and image.takes_folders
    cells = image.example_cells(1.0)
    (found,) = image.from_cells([cells], ["image"], str)
    assert image.read([found]).min() == 255 and vector.probe(2).shape == (2, 1)
    assert [column.name for column in vector.columns] == ["x"] and vector.example_cells(0.25) == [0.25]
    with pytest.raises(InputError, match="row 2: the image is text, but not base64"):
        image.from_cells([["?"]], ["image"], lambda _: "row 2")
