"""Episodes of plain numbers hold, bit for bit, what they held before specs took ranges."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metaray.data import UMTRA, ClassStore, FunctionFamily, Source
from metaray.data.draws import SPLITS
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode

COUNTS = [3 + (7 * i) % 11 for i in range(30)]


def store(path: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (sum(COUNTS), 1, 5, 5), dtype=np.uint8)
    write_store(
        path,
        examples=images,
        counts=COUNTS,
        class_names=[f"class{i}" for i in range(len(COUNTS))],
        schemes={"default": {split: list(range(i, len(COUNTS), 3)) for i, split in enumerate(SPLITS)}},
        preprocessing=ImagePreprocessing(height=5, width=5),
        origin={},
    )
    return str(path)


def digest(source: Source, spec: EpisodeSpec) -> str:
    found = hashlib.sha256()
    for split in SPLITS:
        for index in (0, 1, 17, 2**40):
            episode = sample_episode(source, spec, split, 5, index)
            support, query, class_ids = episode.task
            for array in (*support, *query, class_ids):
                found.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
            found.update(f"{episode.seed}".encode())
    return found.hexdigest()[:16]


PLAIN, MANY = EpisodeSpec(ways=4, shots=1, queries=3), EpisodeSpec(ways=3, shots=5, queries=4)
CASES: dict[str, tuple[Callable[[str], Source], EpisodeSpec, str, str]] = {
    "class store": (lambda path: ClassStore(path=path), PLAIN, "07e7f8095c9d5f6c", "45bd2a2a37cef716"),
    "class store, many shots": (lambda path: ClassStore(path=path), MANY, "5301efecd3b4de21", "45bd2a2a37cef716"),
    "rotations": (lambda path: ClassStore(path=path, rotations=True), PLAIN, "9945243885153ccf", "eae193dc8a17f375"),
    "umtra": (
        lambda path: UMTRA(source=ClassStore(path=path), max_shift=2),
        PLAIN,
        "5e516551e62cdcca",
        "3b19fcf7e9f152b6",
    ),
    "sinusoids": (
        lambda path: FunctionFamily(noise=0.1),
        EpisodeSpec(shots=5, queries=7),
        "51b7f540dbca0fa2",
        "5e68b598578b1e44",
    ),
    "lines": (
        lambda path: FunctionFamily(family="line", oracle=True),
        EpisodeSpec(shots=1, queries=3),
        "e4da93afc7275604",
        "bdcfd2508f61b302",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bits_and_fingerprint(case: str, tmp_path: Path) -> None:
    make, spec, bits, fingerprint = CASES[case]
    source = make(store(tmp_path / "store.arrow"))
    assert digest(source, spec) == bits
    assert source.fingerprint[:16] == fingerprint
