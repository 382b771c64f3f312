"""Vectors as far as they are made, in a folder beside the store that they will be: a killed process loses little."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metaray.errors import InputError
from metaray.file_lock import lock
from metaray.json_text import parse_object


class Partial:
    """A partly computed file of vectors, and the batches that are complete.

    A batch counts as complete once its vectors are on disk; batches that a killed process left incomplete are computed
    again, and so are batches whose vectors are not as they were noted.

    Attributes:
        vectors: Vectors [examples, size], float32 and memory-mapped.

    Args:
        folder: Folder of the vectors and the notes about them.
        key: Digest of what the vectors are computed from; vectors of another key are discarded.
        shape: Shape of the vectors: [examples, size].
        rows_of: Function from the number of a batch to the rows of its examples.
    """

    def __init__(
        self, folder: Path, key: str, shape: tuple[int, int], rows_of: Callable[[int], NDArray[np.int64]]
    ) -> None:
        self._notes, self._key, place = folder / "done.json", key, folder / "vectors"
        self._put: dict[int, int] = {}
        self._done: dict[int, int] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            notes = parse_object(self._notes.read_bytes(), where=self._notes.name)
            if notes["key"] == key and place.stat().st_size == 4 * shape[0] * shape[1]:
                self._done = dict(zip(_numbers_in(notes["batches"]), notes["sums"], strict=True))
        mode: Literal["r+", "w+"] = "r+" if self._done else "w+"
        self.vectors: np.memmap[tuple[int, ...], np.dtype[np.float32]] = np.memmap(
            place, dtype=np.float32, mode=mode, shape=shape
        )
        self._done = {number: known for number, known in self._done.items() if self._sum(rows_of(number)) == known}

    @property
    def batches_done(self) -> set[int]:
        """The numbers of the batches that are noted as done."""
        return set(self._done)

    def put(self, number: int, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take over a batch: [batch, size] vectors of the examples at `rows`."""
        self.vectors[rows] = vectors
        self._put[number] = self._sum(rows)

    def _sum(self, rows: NDArray[np.int64]) -> int:
        return zlib.crc32(self.vectors[rows].tobytes())

    def save(self) -> None:
        """Record the new complete batches, after their vectors are on disk; the record itself is always whole.

        Raises:
            InputError: If the files cannot be written.
        """
        beside, done = self._notes.with_suffix(".new"), dict(sorted((self._done | self._put).items()))
        try:
            self.vectors.flush()
            with beside.open("w") as file:
                json.dump({"key": self._key, "batches": _runs_of(done), "sums": list(done.values())}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._notes)
        except OSError as error:
            raise InputError(f"{self._notes.parent}: can't write there: {error}") from None
        self._done = done
        self._put.clear()


@contextmanager
def partial_of(
    out: Path, made: Mapping[str, Any], shape: tuple[int, int], rows_of: Callable[[int], NDArray[np.int64]]
) -> Iterator[Partial]:
    """Open the partly computed vectors; the folder is deleted when the block succeeds, and kept when it fails.

    Args:
        out: Path of the store that the vectors are for.
        made: What the vectors are computed from, in JSON types; vectors computed from anything else are discarded.
        shape: Shape of the vectors: [examples, size].
        rows_of: Function from the number of a batch to the rows of its examples.

    Raises:
        InputError: If another process computes them, or the folder cannot be written.
    """
    folder = out.absolute().parent / f".{out.name}.embedding"
    key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / "lock").open("a"))
            if not lock(file):
                raise InputError(f"{out}: another process is making these vectors; wait for it")
            partial = Partial(folder, key, shape, rows_of)
        except OSError as error:
            raise InputError(f"{out}: can't write beside it: {error}") from None
        yield partial
        shutil.rmtree(folder, ignore_errors=True)


def _runs_of(numbers: Iterable[int]) -> list[list[int]]:
    """Sorted numbers as runs [first, last + 1]."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return runs


def _numbers_in(runs: list[list[int]]) -> list[int]:
    return [number for first, stop in runs for number in range(int(first), int(stop))]
