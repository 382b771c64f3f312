"""Images and numbers as users give them."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.errors import InputError
from metaray.learners.raw_inputs import compact
from metaray.numbers import is_flat, numbers


@pytest.mark.parametrize(
    "given",
    [
        [[1, 2], [3, 4]],
        ((1.0, 2.0), (3.0, 4.0)),
        np.array([[1, 2], [3, 4]], dtype=np.int8),
        torch.tensor([[1, 2], [3, 4]]),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
        [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3, 4])],
        [[torch.tensor(1.0, requires_grad=True), 2], [np.float16(3), "4"]],
        pd.DataFrame({"a": [1, 3], "b": [2.0, 4.0]}, index=[5, 6]),
        pd.DataFrame({"a": [1, 3], "b": [2, 4]}, dtype="Int64"),
        pd.Series([[1, 2], [3, 4]]),
        pa.array([[1.0, 2.0], [3.0, 4.0]]),
        pa.table({"a": [1, 3], "b": [2, 4]}),
        ([row, row + 1] for row in (1, 3)),
        zip([1, 3], [2, 4], strict=True),
    ],
)
def test_rows_of_numbers(given: Any) -> None:
    found = compact(VectorPreprocessing(size=2), given)
    assert found.dtype == np.float32 and found.tolist() == [[1, 2], [3, 4]]


def test_one_number_a_row() -> None:
    assert numbers([1, 2.5], (1,), "x").tolist() == numbers([[1], [2.5]], (1,), "x").tolist() == [[1], [2.5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], "x has the shape [2], but this learner takes [n, 2]"),
        ([[1.0], [2.0]], "x has the shape [2, 1], but this learner takes [n, 2]"),
        ([], "x holds nothing; give an array of numbers, [n, 2]"),
        (3.0, "x holds nothing"),
        ([[1.0, 2.0], [3.0]], "x must be an array of numbers, [n, 2]"),
        ([["a", "b"]], "x must be an array of numbers, [n, 2]: could not convert string to float: 'a'"),
        ([[1.0, 2.0], [3.0, np.nan]], "row 1 of x holds nan"),
        ([[1.0, -np.inf]], "row 0 of x holds -inf"),
        ([[1.0, 1e39]], "row 0 of x holds 1e+39, which is no finite number of 32 bits"),
        ([[None, 1.0]], "row 0 of x holds nan"),
        (pd.DataFrame({"a": [1, pd.NA], "b": [1, 2]}), "not 'NAType' (row 1)"),
        (pd.DataFrame({"a": [1, 2], "b": ["3", "cat"]}), "could not convert string to float: 'cat' (row 1)"),
        (np.array([["2020-01-01", "2020-01-02"]], "M8[D]"), "datetime64[D] is no type of real numbers"),
        ([[1j, 2.0]], "complex128 is no type of real numbers"),
        (np.ma.array([[1.0, 2.0]], mask=[[False, True]]), "x is a masked array"),
        ({"a": [1.0], "b": [2.0]}, "x is of type dict, which has no order of examples; give a list"),
        ({(1.0, 2.0)}, "x is of type set"),
        ("1,2", "x must be an array of numbers, [n, 2]"),
        (Image.new("RGB", (2, 5)), "x holds an image (RGB, (2, 5)), but this learner takes numbers"),
        ([Image.new("L", (2, 5))], "x holds an image (L, (2, 5))"),
        (torch.eye(2).to_sparse(), "give a dense tensor"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        numbers(given, (2,), "x")


def test_one_vector_is_one_input() -> None:
    for given in ([1.0, 2.0], torch.tensor([1.0, 2.0]), pd.Series([1, 2]), np.array([1, 2])):
        assert compact(VectorPreprocessing(size=2), given).tolist() == [[1, 2]]
    assert compact(VectorPreprocessing(size=1), [1.0, 2.0]).tolist() == [[1], [2]]
    assert is_flat(torch.tensor([1.0, 2.0])) and is_flat([torch.tensor(1.0)]) and not is_flat([[1.0]])


PREPROCESSING = ImagePreprocessing(height=6, width=6, mode="RGB")
PICTURE: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
Held = Callable[[Path], Any]
ONE: dict[str, Held] = {
    "array": lambda path: PICTURE,
    "tensor": lambda path: torch.from_numpy(PICTURE),
    "tensor, channels first": lambda path: torch.from_numpy(PICTURE).permute(2, 0, 1),
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "PIL": lambda path: Image.fromarray(PICTURE),
}
SEVERAL: dict[str, Callable[[Any], Any]] = {
    "list": lambda one: [one, one],
    "tuple": lambda one: (one, one),
    "generator": lambda one: (each for each in (one, one)),
    "Series": lambda one: pd.Series([one, one], index=[4, 2]),
    "DataFrame": lambda one: pd.DataFrame({"image": [one, one]}),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("held", ONE.values(), ids=ONE)
def test_one_image_alone_is_one_image(held: Held, path: Path) -> None:
    wanted = PREPROCESSING.image(Image.fromarray(PICTURE))
    found = compact(PREPROCESSING, held(path))
    assert found.shape == (1, 3, 6, 6) and np.array_equal(found[0], wanted)


@pytest.mark.parametrize("together", SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("held", ["array", "tensor, channels first", "path", "text", "bytes", "PIL"])
def test_several_images_in_whatever_holds_them(held: str, together: Callable[[Any], Any], path: Path) -> None:
    wanted = PREPROCESSING.image(Image.fromarray(PICTURE))
    found = compact(PREPROCESSING, together(ONE[held](path)))
    assert found.shape == (2, 3, 6, 6) and (found == wanted).all()


def test_images_in_arrays_of_other_libraries(path: Path) -> None:
    wanted = PREPROCESSING.image(Image.fromarray(PICTURE))
    mixed = np.empty(2, object)
    mixed[:] = [PICTURE, str(path)]
    batch = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    for given in (pa.array([path.read_bytes()] * 2), np.array([str(path)] * 2), mixed, batch, map(Path, [path, path])):
        found = compact(PREPROCESSING, given)
        assert found.shape == (2, 3, 6, 6) and (found == wanted).all()
    with path.open("rb") as file:
        assert np.array_equal(compact(PREPROCESSING, file)[0], wanted)
    with Image.open(path) as lazy:
        assert np.array_equal(compact(PREPROCESSING, lazy)[0], wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "image 0 is None; give a path, the bytes of an image file, a PIL image or an array"),
        ([PICTURE, 3], "image 1 is of type int (3); give a path"),
        ({"a": PICTURE}, "x is of type dict, which has no order of examples; give a list"),
        ({"a.png"}, "x is of type set"),
        (b"no image", "image 0 cannot be read: not an image that Pillow can read"),
        ([PICTURE, b""], "image 1 cannot be read"),
        (io.StringIO("a"), "image 0 is a file that gives str; open it in binary mode"),
        ("nowhere.png", "image nowhere.png cannot be read: [Errno 2] No such file or directory"),
        (".", "image . cannot be read: [Errno 21] Is a directory"),
        ("a\0b", "image a\0b cannot be read"),
        ([[[1, 2], [3]]], "image 0 is a list that is no array of pixels"),
        (PICTURE.tolist(), "type int64"),
        (pd.DataFrame({"a": ["x.png"], "b": [1]}), "x is of type DataFrame and shape [1, 2]; give one column"),
        (np.ma.array(PICTURE, mask=PICTURE > 9), "x is a masked array"),
        (torch.zeros(9, 7, 3), "image 0 is an array of shape (9, 7, 3) and type float32: float32 has no range"),
        ([], "no images given"),
        (iter(()), "no images given"),
    ],
)
def test_what_is_no_image_is_refused_by_type_and_shape(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        compact(PREPROCESSING, given)


def test_a_file_whose_pixels_have_no_range_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "scan.tif")
    with pytest.raises(InputError, match=r"image .*scan\.tif: float32 has no range of its own"):
        compact(PREPROCESSING, [tmp_path / "scan.tif"])
