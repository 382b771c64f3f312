"""A frozen encoder, once over a store: a store of vectors, from which recipes train in a fraction of the time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from metaray.data.preprocessing import EncodedPreprocessing, TextPreprocessing
from metaray.data.ragged import Ragged, gather
from metaray.data.remote import held, local_paths
from metaray.data.replacing import check_replaceable
from metaray.data.servers import shown
from metaray.data.store_columns import Examples
from metaray.data.store_file import StoreFile, write_store
from metaray.data.store_preprocessing import prepared
from metaray.data.verified import open_store
from metaray.episodes.inputs import mapped
from metaray.errors import InputError
from metaray.models.encoders.encoder import Encoder
from metaray.models.encoders.partial import Partial, partial_of

BATCH = 64
SAVED_EVERY = 32
"""Batches after which what is done is noted on the disk."""
THREADS = 1
"""Wherever vectors are made: kernels may round differently on more."""

Made = tuple[int, NDArray[np.float32]]
"""Number of a batch, and its vectors [batch, size]."""


class Task(NamedTuple):
    """The description of an embedding job, in plain values that can be sent to other processes.

    Attributes:
        store: Path or URI of the store.
        fingerprint: Fingerprint of the store.
        encoder: Description of the encoder.
        batch_size: Number of examples that the encoder computes at once.
        device: Device to compute on.
        trust: Packages that the store's preprocessing may come from.
    """

    store: str
    fingerprint: str
    encoder: Mapping[str, Any]
    batch_size: int
    device: str
    trust: tuple[str, ...]


Run = Callable[[Task, list[int]], Iterator[Made]]
"""Function that computes batches in any order, in this process or on other machines."""


class EmbedReport(NamedTuple):
    """The result of embedding a store.

    Attributes:
        path: Path of the new store of vectors.
        examples: Number of examples.
        size: Size of a vector.
        before: Number of examples that an earlier, interrupted call had embedded.
    """

    path: Path
    examples: int
    size: int
    before: int


class Batches:
    """The examples of a store in batches, and their vectors.

    Examples are sorted by length, so that little padding is needed; the batches follow from the store alone.

    Args:
        task: Description of the job.
        file: The store's file, if it is open already.

    Raises:
        InputError: If the store is missing or has changed, or the encoder takes other inputs.
    """

    def __init__(self, task: Task, file: StoreFile | None = None) -> None:
        self._task, self._file = task, file or _opened(task.store)
        meta, where = self._file.meta, shown(task.store)
        if meta.fingerprint != task.fingerprint:
            raise InputError(f"{where}: its fingerprint is {meta.fingerprint} here, but {task.fingerprint} elsewhere")
        self._raw = prepared(meta.preprocessing, meta.feature_shape, meta.dtype, trust=task.trust, where=where)
        encoder = Encoder.parse(task.encoder, where="encoder")
        encoder.check_inputs(self._raw)
        self._device = torch.device(task.device)
        self._body = encoder.body(self._raw).eval().to(self._device)
        self._order = _by_length(self._file.examples)

    def vectors(self, number: int) -> NDArray[np.float32]:
        """Vectors [batch, size] of a batch.

        Raises:
            InputError: If some vectors are not finite.
        """
        rows = self._order[number * self._task.batch_size : (number + 1) * self._task.batch_size]
        (compact,) = gather(self._file.examples, rows)
        with torch.no_grad(), _threads(THREADS):
            x = self._raw.normalize(mapped(lambda part: torch.from_numpy(part).to(self._device), compact))
            found = self._body(x).float().cpu()
        if not bool(found.isfinite().all()):
            bad = int(rows[int((~found.isfinite()).any(1).nonzero()[0])])
            raise InputError(f"{self._file.path}: of example {bad} the encoder makes numbers that are not finite")
        made: NDArray[np.float32] = found.numpy()
        return made


def in_this_process(task: Task, numbers: list[int]) -> Iterator[Made]:
    """Compute batches one after the other in this process."""
    batches = Batches(task)
    for number in numbers:
        yield number, batches.vectors(number)


def embed_store(
    store: str,
    encoder: Encoder,
    out: Path,
    *,
    batch_size: int = BATCH,
    device: str = "cpu",
    trust: tuple[str, ...] = (),
    run: Run = in_this_process,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Embed the examples of a store by an encoder, and write a store of their vectors.

    Classes, splits and groups stay the same, and texts are kept beside their vectors. Calling it again resumes an
    interrupted call. The vectors depend on the store, the encoder, the batch size and the kind of device alone, to the
    last bit on machines of one kind.

    Args:
        store: Path or URI of the store.
        encoder: The encoder, frozen.
        out: Path of the file to write.
        batch_size: Number of examples that the encoder computes at once.
        device: Device to compute on.
        trust: Packages that the store's preprocessing may come from.
        run: Function that computes the batches, here or elsewhere.
        progress: Function that is called with the numbers of finished and of all examples.

    Raises:
        InputError: If there is no such store; the encoder takes other inputs, or is not frozen; vectors are not finite;
            another process writes the same file; or the path cannot be written.
    """
    check_replaceable(out, local_paths(store))
    if batch_size < 1:
        raise InputError(f"batch_size: at least 1 (got {batch_size})")
    if not encoder.frozen:
        raise InputError("an encoder that is trained changes with every step: only a frozen one can be cached")
    file = _opened(store)
    meta = file.meta
    raw = prepared(meta.preprocessing, meta.feature_shape, meta.dtype, trust=trust, where=shown(store))
    encoder.check_inputs(raw)
    described = encoder.model_dump(mode="json")
    made = {"store": meta.fingerprint, "encoder": {**described, "path": ""}, "batch": batch_size, "device": device}
    size, task = encoder.size, Task(store, meta.fingerprint, described, batch_size, device, trust)
    made |= {"threads": THREADS, "torch": torch.__version__}
    order = _by_length(file.examples)
    rows_of = lambda number: order[number * batch_size : (number + 1) * batch_size]  # noqa: E731
    with partial_of(out, made, (len(file.examples), size), rows_of) as partial:
        before = sum(len(rows) for rows in _rows_of(file, batch_size, sorted(partial.batches_done)))
        _fill(partial, file, task, run, progress)
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


def _fill(partial: Partial, file: StoreFile, task: Task, run: Run, progress: Callable[[int, int], None] | None) -> None:
    """Make the batches that are not there yet."""
    order, total = _by_length(file.examples), len(file.examples)
    left = sorted({*range(-(-total // task.batch_size))} - partial.batches_done)
    done = total - sum(len(rows) for rows in _rows_of(file, task.batch_size, left))
    for place, (number, vectors) in enumerate(run(task, left) if left else (), 1):
        rows = order[number * task.batch_size : (number + 1) * task.batch_size]
        partial.put(number, rows, vectors)
        done += len(rows)
        if place % SAVED_EVERY == 0 or place == len(left):
            partial.save()
        if progress is not None:
            progress(done, total)
    assert done == total, (done, total)


def _rows_of(file: StoreFile, batch_size: int, numbers: list[int]) -> list[range]:
    total = len(file.examples)
    return [range(number * batch_size, min((number + 1) * batch_size, total)) for number in numbers]


def _opened(store: str) -> StoreFile:
    with held(store) as local:
        return open_store(local)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _by_length(examples: Examples) -> NDArray[np.int64]:
    if isinstance(examples, Ragged):
        return examples.lengths.argsort(kind="stable")
    return np.arange(len(examples))
