"""Vectors as far as they are made, in a folder beside the store that they will be: a killed process loses little."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metaray.errors import InputError
from metaray.file_lock import lock
from metaray.json_text import parse_object


class Partial:
    """The vectors, and which batches of them are whole.

    A batch counts as done once its vectors are on the disk: what a killed process left otherwise is made again.

    Attributes:
        vectors: [examples, size] float32, mapped.
        batches_done: The numbers of those noted as done.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, int]) -> None:
        self._notes, self._key, place = folder / "done.json", key, folder / "vectors"
        self.batches_done: set[int] = set()
        self._put: set[int] = set()
        with suppress(OSError, ValueError, KeyError, TypeError):
            notes = parse_object(self._notes.read_bytes(), where=self._notes.name)
            if notes["key"] == key and place.stat().st_size == 4 * shape[0] * shape[1]:
                self.batches_done = _numbers_in(notes["batches"])
        mode: Literal["r+", "w+"] = "r+" if self.batches_done else "w+"
        self.vectors: np.memmap[tuple[int, ...], np.dtype[np.float32]] = np.memmap(
            place, dtype=np.float32, mode=mode, shape=shape
        )

    def put(self, number: int, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take over a batch: [batch, size] vectors of the examples at `rows`."""
        self.vectors[rows] = vectors
        self._put.add(number)

    def save(self) -> None:
        """Note what was taken over, after it is on the disk; the notes are whole at any time."""
        self.vectors.flush()
        self.batches_done |= self._put
        self._put.clear()
        beside = self._notes.with_suffix(".new")
        with beside.open("w") as file:
            json.dump({"key": self._key, "batches": _runs_of(self.batches_done)}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._notes)


@contextmanager
def partial_of(out: Path, made: Mapping[str, Any], shape: tuple[int, int]) -> Iterator[Partial]:
    """What is there already of these vectors; the folder goes when the block is done, and stays if it is not.

    Args:
        out: The store that they will be.
        made: What they are made of, in JSON types; what was made of anything else is nothing worth.
        shape: [examples, size].

    Raises:
        InputError: If another process is at it, or the folder can't be written.
    """
    folder = out.absolute().parent / f".{out.name}.embedding"
    key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as file:
            if not lock(file):
                raise InputError(f"{out}: another process is making these vectors; wait for it")
            yield Partial(folder, key, shape)
            shutil.rmtree(folder)
    except OSError as error:
        raise InputError(f"{out}: can't write beside it: {error}") from None


def _runs_of(numbers: set[int]) -> list[list[int]]:
    """Sorted numbers as runs [first, last + 1]."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return runs


def _numbers_in(runs: list[list[int]]) -> set[int]:
    return {number for first, stop in runs for number in range(int(first), int(stop))}
