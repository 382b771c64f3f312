"""Data that live on the device give, bit for bit, the episodes that are sent there whole; here it is the CPU."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from metaray.data import ClassStore, Glyphs
from metaray.data.draws import SPLITS, Split
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing, VectorPreprocessing
from metaray.data.ragged import VALUES, joined
from metaray.data.rows import DATA_ON, ROWS, TURNS
from metaray.data.store_file import write_store
from metaray.episodes import resident as its
from metaray.episodes.augmentation import Augmentation
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.resident import bring_home, is_wanted, resident
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.errors import InputError

CPU = torch.device("cpu")
COUNTS = [9 + i % 5 for i in range(18)]
SCHEME: dict[Split, list[int]] = {split: list(range(place, 18, 3)) for place, split in enumerate(SPLITS)}
KINDS = ("colour", "grey", "oblong", "bands", "vectors")
FIXED = EpisodeSpec(ways=3, shots=2, queries=4)


class Bands(Preprocessing):
    """Square images of two channels of floating-point numbers, as they are."""

    kind: ClassVar[str] = "bands"

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (2, 6, 6)

    def normalize(self, x: Tensor) -> Tensor:
        return x


class Lines(Bands):
    """Of unequal length."""

    kind: ClassVar[str] = "lines"

    @property
    def feature_shape(self) -> Any:
        return (None,)

    def normalize(self, x: Any) -> Any:
        return {"line": x[VALUES]}


def write(path: Path, examples: Any, preprocessing: Any) -> ClassStore:
    names = [f"class{i}" for i in range(len(COUNTS))]
    write_store(
        path,
        examples=examples,
        counts=COUNTS,
        class_names=names,
        schemes={"default": SCHEME},
        preprocessing=preprocessing,
        origin={},
    )
    return ClassStore(path=str(path))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassStore]:
    folder, draws = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    count = sum(COUNTS)
    pixels = draws.integers(0, 256, (count, 3, 6, 6), dtype=np.uint8)
    colour = ImagePreprocessing(height=6, width=6, mode="RGB", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    floats = draws.standard_normal((count, 2, 6, 6), dtype=np.float32)
    ragged = joined([draws.standard_normal(3 + i % 4).astype(np.float32) for i in range(count)], "example")
    return {
        "colour": write(folder / "colour.arrow", pixels, colour),
        "grey": write(folder / "grey.arrow", pixels[:, :1], ImagePreprocessing(height=6, width=6, invert=True)),
        "oblong": write(folder / "oblong.arrow", pixels[:, :1, :4], ImagePreprocessing(height=4, width=6)),
        "bands": write(folder / "bands.arrow", floats, Bands()),
        "vectors": write(folder / "vectors.arrow", floats.reshape(count, -1)[:, :5], VectorPreprocessing(size=5)),
        "ragged": write(folder / "ragged.arrow", ragged, Lines()),
    }


def batches(source: ClassStore, spec: EpisodeSpec, split: Split) -> tuple[MetaBatch, MetaBatch]:
    whole, rows = (sample_meta_batch(source, spec, split, 3, range(5, 12), rows=rows) for rows in (False, True))
    return whole, rows


@pytest.mark.parametrize(
    ("name", "rotations"),
    [*((name, False) for name in KINDS), *((name, True) for name in KINDS if name not in ("oblong", "vectors"))],
)
@pytest.mark.parametrize("spec", [FIXED, EpisodeSpec(ways=(2, 4), shots=(1, 3), queries=2)], ids=["fixed", "ranges"])
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_the_same_episodes(
    name: str, rotations: bool, spec: EpisodeSpec, chunk_size: int, stores: dict[str, ClassStore]
) -> None:
    source = stores[name].model_copy(update={"rotations": rotations})
    augmentation = Augmentation(crop_padding=1, flip=True) if name in ("colour", "grey") else None
    for split in SPLITS[:2]:
        pair = [
            [episode for chunk in chunks(batch, chunk_size, CPU, source, split, augmentation) for episode in chunk]
            for batch in batches(source, spec, split)
        ]
        assert len(pair[0]) == len(pair[1]) > 0
        for whole, gathered in zip(*pair, strict=True):
            tensors = [(e.support.x, e.support.y, e.query.x, e.query.y, e.seed, e.classes) for e in (whole, gathered)]
            for one, other in zip(*tensors, strict=True):
                assert one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
                assert other.is_contiguous() and other.storage_offset() == 0


def test_turned_images_are_among_them(stores: dict[str, ClassStore]) -> None:
    source = stores["grey"].model_copy(update={"rotations": True})
    turns = batches(source, FIXED, "meta-train")[1].stacks[0].task.query.x[TURNS]
    assert set(turns.flatten().tolist()) == {0, 1, 2, 3} and turns.dtype == np.int8


def test_what_travels_is_small(stores: dict[str, ClassStore]) -> None:
    whole, rows = (len(pickle.dumps(batch, protocol=5)) for batch in batches(stores["colour"], FIXED, "meta-train"))
    assert rows < whole / 5
    (stacked,) = batches(stores["colour"], FIXED, "meta-train")[1].stacks
    assert stacked.task.support.x[ROWS].shape == (7, 6) and stacked.task.support.y.shape == (7, 6)


def test_it_is_brought_once_and_few_are_kept(stores: dict[str, ClassStore], monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[int] = []
    bring = its._bring

    def noted(examples: Any, device: torch.device) -> its.Resident:
        brought.append(1)
        return bring(examples, device)

    monkeypatch.setattr(its, "_bring", noted)
    its._brought().clear()
    first = resident(stores["grey"], CPU)
    assert resident(stores["grey"].model_copy(), CPU) is first and len(brought) == 1
    for name in ("colour", "bands"):
        resident(stores[name], CPU)
    assert len(its._brought()) == its.MOST_KEPT and len(brought) == 3
    monkeypatch.setattr(its, "BLOCK_BYTES", 100)
    its._brought().clear()
    assert torch.equal(resident(stores["grey"], CPU).examples, first.examples), "in blocks as at once"


class Own(ClassStore):
    """Of somebody's own."""


def test_where_data_are_wanted(stores: dict[str, ClassStore]) -> None:
    source = stores["colour"]
    found = {(device, on): is_wanted(source, device, on) for device in ("cpu", "cuda") for on in DATA_ON}
    assert found == {
        ("cpu", "auto"): False,
        ("cpu", "device"): True,
        ("cpu", "host"): False,
        ("cuda", "auto"): True,
        ("cuda", "device"): True,
        ("cuda", "host"): False,
    }
    for other in (stores["ragged"], Glyphs(), Own(path=source.path)):
        assert not is_wanted(other, "cuda")
        with pytest.raises(InputError, match="--data-on device: tasks of this source .* are not rows of a class store"):
            is_wanted(other, "cuda", "device")
    with pytest.raises(InputError, match="unknown place of the data 'gpu'"):
        is_wanted(source, "cuda", "gpu")


def test_what_does_not_fit_stays(stores: dict[str, ClassStore], monkeypatch: pytest.MonkeyPatch) -> None:
    its._brought().clear()
    assert bring_home(stores["colour"], CPU) == (False, "")
    assert bring_home(stores["ragged"], CPU, "auto") == (False, "")
    size = stores["colour"].lasting_examples
    assert size is not None
    monkeypatch.setattr(its, "free_bytes", lambda device: 4 * size.nbytes - 1)
    found = bring_home(stores["colour"], CPU, "device")
    assert not found.on_device and "stay on the host: they would take more than 25% of the" in found.note
    monkeypatch.setattr(its, "free_bytes", lambda device: 4 * size.nbytes)
    found = bring_home(stores["colour"], CPU, "device")
    assert found.on_device and "live on the device: episodes travel as rows of them" in found.note
    monkeypatch.setattr(its, "free_bytes", lambda device: 0)
    assert bring_home(stores["colour"], CPU, "device").on_device, "it is there already"


def test_this_machine_has_memory_free() -> None:
    assert its.free_bytes(CPU) > 2**20


def test_a_source_without_a_store_has_no_rows(make_waves: Callable[..., Any]) -> None:
    source = make_waves().source
    assert source.lasting_examples is None
    with pytest.raises(NotImplementedError, match="function_family has no examples that last"):
        sample_meta_batch(source, FIXED, "meta-train", 0, range(2), rows=True)
