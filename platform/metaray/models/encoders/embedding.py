"""A frozen encoder, once over a store: a store of vectors, from which recipes train in a fraction of the time."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from metaray.data.preprocessing import EncodedPreprocessing, Preprocessing, TextPreprocessing
from metaray.data.ragged import Ragged, gather
from metaray.data.remote import held
from metaray.data.servers import shown
from metaray.data.store_columns import Examples
from metaray.data.store_file import StoreFile, check_writable, write_store
from metaray.data.store_preprocessing import prepared
from metaray.data.verified import open_store
from metaray.episodes.inputs import mapped
from metaray.errors import InputError
from metaray.file_lock import lock
from metaray.json_text import parse_object
from metaray.models.encoders.encoder import Encoder

BATCH = 64
SAVED_EVERY = 32
"""Batches after which what is done is noted on the disk."""


class EmbedReport(NamedTuple):
    """What an embedding made.

    Attributes:
        path: of the store of vectors.
        examples: how many.
        size: of a vector.
        before: how many an earlier call, which was stopped, had made.
    """

    path: Path
    examples: int
    size: int
    before: int


def embed_store(
    store: str,
    encoder: Encoder,
    out: Path,
    *,
    batch_size: int = BATCH,
    device: str = "cpu",
    trust: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Send the examples of a store through an encoder, and write what it makes of them as a store of vectors.

    Classes, splits and groups stay as they are. The same call goes on where an earlier one was stopped. The vectors
    are a function of the store, the encoder, the size of the batches and the kind of device, to the last bit on one
    machine: examples go by their length, so that few are padded far.

    Args:
        store: its path or URI.
        encoder: frozen.
        out: the file to write.
        batch_size: examples that go through it together.
        device: to compute on.
        trust: packages that the store's preprocessing may come from.
        progress: called with (examples done, examples in all).

    Raises:
        InputError: no such store; an encoder that takes other inputs, or is not frozen; vectors that are not finite;
            another process that writes the same file; an unwritable path.
    """
    check_writable(out)
    if not encoder.frozen:
        raise InputError("an encoder that is trained changes with every step: only a frozen one can be cached")
    with held(store) as local:
        file = open_store(local)
    meta = file.meta
    raw = prepared(meta.preprocessing, meta.feature_shape, meta.dtype, trust=trust, where=shown(store))
    encoder.check_inputs(raw)
    described = encoder.model_dump(mode="json")
    made = {"store": meta.fingerprint, "encoder": {**described, "path": ""}, "batch": batch_size, "device": device}
    size = encoder.architecture.size
    with _partial(out, made, (len(file.examples), size)) as partial:
        before = partial.done
        _embed(file, raw, encoder, partial, batch_size, torch.device(device), progress)
        write_store(
            out,
            examples=partial.vectors,
            counts=meta.counts,
            class_names=meta.class_names,
            schemes=meta.schemes,
            preprocessing=EncodedPreprocessing(raw=raw, encoder=described, size=size),
            origin={
                **{"importer": "embed", "store_fingerprint": meta.fingerprint, "encoder_sha256": encoder.sha256},
                **{"batch_size": str(batch_size), "device": device, "torch": torch.__version__},
            },
            groups=None if meta.groups is None else meta.groups.names,
            raw=file.examples if isinstance(raw, TextPreprocessing) else None,
        )
    return EmbedReport(out, len(file.examples), size, before)


class _Partial:
    """Vectors as far as they are made, in a folder beside the store that they will be.

    Attributes:
        vectors: [examples, size] float32, mapped.
        done: batches that are whole, as examples in the order in which they go.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, int]) -> None:
        self._notes, self._key, place = folder / "done.json", key, folder / "vectors"
        self.done = 0
        with suppress(OSError, ValueError, KeyError, TypeError):
            notes = parse_object(self._notes.read_bytes(), where=self._notes.name)
            fits = notes["key"] == key and place.stat().st_size == 4 * shape[0] * shape[1]
            self.done = min(int(notes["done"]), shape[0]) if fits else 0
        mode: Literal["r+", "w+"] = "r+" if self.done else "w+"
        self.vectors: np.memmap[tuple[int, ...], np.dtype[np.float32]] = np.memmap(
            place, dtype=np.float32, mode=mode, shape=shape
        )

    def save(self, done: int) -> None:
        """Note what is done, after it is on the disk."""
        self.vectors.flush()
        self.done = done
        beside = self._notes.with_suffix(".new")
        beside.write_text(json.dumps({"key": self._key, "done": done}))
        beside.replace(self._notes)


@contextmanager
def _partial(out: Path, made: dict[str, object], shape: tuple[int, int]) -> Iterator[_Partial]:
    """What is there already of these vectors; the folder goes when the block is done, and stays if it is not."""
    folder = out.absolute().parent / f".{out.name}.embedding"
    key = hashlib.sha256(json.dumps({**made, "torch": torch.__version__}, sort_keys=True).encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as file:
            if not lock(file):
                raise InputError(f"{out}: another process is making these vectors; wait for it")
            yield _Partial(folder, key, shape)
            shutil.rmtree(folder)
    except OSError as error:
        raise InputError(f"{out}: can't write beside it: {error}") from None


def _embed(
    file: StoreFile,
    raw: Preprocessing,
    encoder: Encoder,
    partial: _Partial,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    body, total = encoder.body().eval().to(device), len(file.examples)
    order = _by_length(file.examples)
    for number, start in enumerate(range(partial.done, total, batch_size), 1):
        rows = order[start : start + batch_size]
        (compact,) = gather(file.examples, rows)
        with torch.no_grad():
            x = raw.normalize(mapped(lambda part: torch.from_numpy(part).to(device), compact))
            found = body(x).float().cpu()
        if not bool(found.isfinite().all()):
            bad = int(rows[int((~found.isfinite()).any(1).nonzero()[0])])
            raise InputError(f"{file.path}: of example {bad} the encoder makes numbers that are not finite")
        partial.vectors[rows] = found.numpy()
        done = min(start + batch_size, total)
        if number % SAVED_EVERY == 0 or done == total:
            partial.save(done)
        if progress is not None:
            progress(done, total)


def _by_length(examples: Examples) -> NDArray[np.int64]:
    if isinstance(examples, Ragged):
        return examples.lengths.argsort(kind="stable")
    return np.arange(len(examples))
