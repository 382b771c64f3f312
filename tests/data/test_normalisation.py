"""Mean and standard deviation of a store's channels, and the source that applies them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metaray.data import UMTRA, ClassStore
from metaray.data.describe import describe_store
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.normalisation import Normalisation, measured
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import read_store, write_store
from metaray.episodes.augmentation import normalized
from metaray.errors import InputError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of colour images, of unequal number and brightness, under two schemes and an empty one."""
    generator = np.random.default_rng(0)
    counts = [3, 5, 4, 2, 6, 3]
    images = generator.integers(0, 200, (sum(counts), 3, 4, 5), dtype=np.uint8)
    images[:, 1] //= 2
    images[8:] += 50
    path = tmp_path_factory.mktemp("store") / "colours.arrow"
    write_store(
        path,
        examples=images,
        counts=counts,
        class_names=[f"class{i}" for i in range(6)],
        schemes={
            "default": {"meta-train": [0, 1], "meta-val": [2], "meta-test": [3]},
            "other": {"meta-train": [5, 2, 3], "meta-test": [0]},
            "none": {"meta-test": [0, 1]},
        },
        preprocessing=ImagePreprocessing(height=4, width=5, mode="RGB"),
        origin={},
    )
    return path


def test_they_are_those_of_the_classes_of_meta_train(store: Path) -> None:
    file = read_store(store)
    found = measured(file)
    assert list(found) == ["default", "other"]
    for name, rows in {"default": range(8), "other": [20, 21, 22, 8, 9, 10, 11, 12, 13]}.items():
        pixels = file.examples[list(rows)].astype(np.float64) / 255
        assert found[name].mean == pytest.approx(pixels.mean((0, 2, 3)), abs=6e-5)
        assert found[name].std == pytest.approx(pixels.std((0, 2, 3)), abs=6e-5)


def test_blank_images_have_none(tmp_path: Path) -> None:
    images = np.full((4, 1, 3, 3), 7, dtype=np.uint8)
    splits = {"meta-train": [0], "meta-val": [1]}
    preprocessing = ImagePreprocessing(height=3, width=3)
    options = {"class_names": ["a", "b"], "schemes": {"default": splits}, "preprocessing": preprocessing, "origin": {}}
    write_store(tmp_path / "blank.arrow", examples=images, counts=[2, 2], **options)  # type: ignore[arg-type]
    assert measured(read_store(tmp_path / "blank.arrow")) == {}


def test_they_are_written_as_set_reads_them() -> None:
    found = Normalisation((0.5, 0.25), (0.125, 1 / 3)).settings
    assert found == "--set source.mean=[0.5000,0.2500] --set source.std=[0.1250,0.3333]"


def test_a_description_has_them(store: Path) -> None:
    options = {"rotations": False, "spec": EpisodeSpec(ways=2, shots=1, queries=1)}
    found = describe_store(str(store), None, **options)  # type: ignore[arg-type]
    assert found.normalisations == measured(read_store(store))
    assert list(describe_store(str(store), "other", **options).normalisations) == ["other"]  # type: ignore[arg-type]
    assert found.to_dict()["normalisation"]["default"]["mean"] == found.normalisations["default"].mean


def test_a_source_applies_them_and_changes_nothing_else(store: Path) -> None:
    plain = ClassStore(path=str(store))
    source = ClassStore(path=str(store), mean=(0.4, 0.2, 0.3), std=(0.2, 0.1, 0.25))
    assert source.fingerprint == plain.fingerprint and source.stamp == plain.stamp
    assert plain.preprocessing == plain.meta.preprocessing
    x = torch.from_numpy(plain.examples(0))
    expected = (x / 255 - torch.tensor(source.mean).view(-1, 1, 1)) / torch.tensor(source.std).view(-1, 1, 1)
    assert torch.equal(normalized(source.preprocessing, x), expected)
    assert torch.equal(normalized(plain.preprocessing, x), x / 255)
    assert UMTRA(source=source).preprocessing == source.preprocessing
    assert ClassStore(path=str(store), mean=(0.5,), std=(0.5,)).preprocessing.model_dump()["mean"] == (0.5,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": [0.5]}, "std is missing"),
        ({"std": [0.5]}, "mean is missing"),
        ({"mean": [], "std": []}, "mean"),
        ({"mean": [0.5], "std": [0.0]}, "std.0"),
    ],
)
def test_half_of_it_is_refused(fields: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassStore.parse({"path": "a.arrow", **fields}, where="source")


def test_numbers_that_do_not_fit_the_channels(store: Path) -> None:
    with pytest.raises(InputError, match="mean has 2 numbers for 3 channels"):
        ClassStore(path=str(store), mean=(0.1, 0.2), std=(1.0,)).preprocessing  # noqa: B018
