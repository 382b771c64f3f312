"""Small stores and archives for the tests of the data stage."""

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaray.data.draws import Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import write_store
from tests.data.patients import MakeTable, made_table

MakeStore = Callable[..., Path]
MakeZip = Callable[[str, Mapping[str, bytes]], Path]
MakePng = Callable[[int], bytes]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Writes a store of random images; the first pixel of each image is its row."""

    def make(
        counts: Sequence[int],
        splits: Mapping[Split, Sequence[int]],
        *,
        name: str = "store.arrow",
        size: tuple[int, int] = (3, 3),
        groups: Sequence[str] | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> Path:
        preprocessing = ImagePreprocessing(height=size[0], width=size[1])
        images = np.random.default_rng(0).integers(0, 256, (sum(counts), 1, *size), dtype=np.uint8)
        images[:, 0, 0, 0] = np.arange(len(images))
        path = tmp_path / name
        write_store(
            path,
            examples=images,
            counts=counts,
            class_names=[f"class{i}" for i in range(len(counts))],
            schemes={"default": splits},
            preprocessing=preprocessing,
            origin=origin or {"importer": "test"},
            groups=groups,
        )
        return path

    return make


@pytest.fixture
def make_zip(tmp_path: Path) -> MakeZip:
    """Writes a zip archive with the given members."""

    def make(name: str, members: Mapping[str, bytes]) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return path

    return make


@pytest.fixture
def png() -> MakePng:
    """A PNG file of 10x8 grey pixels of the given value."""

    def make(value: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("L", (10, 8), value).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def omniglot_folder() -> Path:
    """The real Omniglot, where the machine has it."""
    beside = Path(__file__).parents[2].parent / "shared" / "data" / "omniglot"
    folder = Path(os.environ.get("METARAY_TEST_DATA", beside))
    if not (folder / "images_background.zip").exists():
        pytest.skip("no Omniglot on this machine; METARAY_TEST_DATA names its folder")
    return folder


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """Imports the patients, or other lines; keyword arguments are those of `import_table`."""
    return partial(made_table, tmp_path)
