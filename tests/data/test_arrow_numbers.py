"""Numbers of Arrow are seen by numpy as `to_numpy` sees them, and stores open without pandas."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from metaray.data import write_class_store
from metaray.data.arrow_numbers import numbers_in
from metaray.data.preprocessing import VectorPreprocessing

KINDS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [slice(0, 9), slice(4, 7), slice(9, 9)])
def test_it_is_to_numpy(kind: str, part: slice) -> None:
    array: Any = pa.array(np.arange(9, dtype=kind))[part]
    found, expected = numbers_in(array), array.to_numpy()
    assert found.dtype == expected.dtype and np.array_equal(found, expected) and len(found) == part.stop - part.start
    assert not found.flags.writeable
    if len(found):
        assert np.shares_memory(found, expected)


def test_offsets_of_a_list_that_was_cut() -> None:
    lists: Any = pa.array([[1, 2], [3], [4, 5, 6]], pa.large_list(pa.int32()))
    assert numbers_in(lists[1:].offsets).tolist() == [2, 3, 6]
    pairs: Any = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2))
    assert numbers_in(pairs[1:].flatten()).tolist() == [3, 4, 5, 6]


def test_what_is_missing_is_refused() -> None:
    for array in (pa.array([1, None]), pa.array([True]), pa.array(["text"])):
        with pytest.raises(pa.ArrowInvalid):
            numbers_in(array)


def test_a_store_is_sampled_without_pandas(tmp_path: Path) -> None:
    path = str(tmp_path / "flowers.arrow")
    rows = {"rose": [[1, 2], [1, 3]], "lily": [[5, 2], [6, 2], [7, 1]]}
    write_class_store(path, rows, {"meta-train": ["rose", "lily"]}, VectorPreprocessing(size=2))
    code = (
        "import sys\n"
        "from metaray.data import ClassStore\n"
        "from metaray.episodes.episode import EpisodeSpec\n"
        "from metaray.episodes.sampler import sample_episode\n"
        "spec = EpisodeSpec(ways=2, shots=1, queries=1)\n"
        f"sample_episode(ClassStore(path={path!r}), spec, 'meta-train', 0, 0)\n"
        "print([name for name in ('pandas', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
