"""Files of pretrained weights: fetched once by a node, known by their SHA-256, memory-mapped by all its processes.

The cache is `weights` in $METARAY_CACHE (by default `metaray` in $XDG_CACHE_HOME, or in ~/.cache):

    SHA256.safetensors   the tensors of the file with this SHA-256, float32, each at an address that kernels like
    KEY.json             which SHA-256 a file had, and what was to be seen of it then; stays
    KEY.lock             locked by whoever fetches or reads the file with this address; stays

with what `metaray.data.weight_cache` keeps beside it, which also says what is swept, and when.

A file lays its tensors at any offset, and kernels may round differently there: so they are laid anew, for the same bits
everywhere. Only safetensors are read: nothing is unpickled.
"""

import hashlib
import json
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from metaray.data.cache import CACHE, cache_folder
from metaray.data.remote import is_remote, local_path, remote_object
from metaray.data.servers import shown
from metaray.data.verified import RESTS_S, stamp
from metaray.data.weight_cache import check_room, file_sha256, part_of, put, used
from metaray.errors import InputError
from metaray.file_lock import lock
from metaray.json_text import parse_object
from metaray.uris import Uri

FOLDER = "weights"
ALIGNED = 64
FLOATS = ("F64", "F32", "F16", "BF16")
MOST_BYTES = 64 << 20
"""Size of a file beside the weights: a configuration, a tokenizer."""


MAGIC_BYTES = 32
KINDS = (
    (
        b"version https://git-lfs",
        "it is a pointer of Git LFS, which `git lfs pull` puts the file itself in the place of",
    ),
    (b"\x1f\x8b", "it is packed by gzip; unpack it"),
    (b"PK\x03\x04", "it is a zip archive, as torch.save writes pickled weights"),
    (b"\x80\x02", "it is pickled"),
    (b"\x89HDF", "it is a file of HDF5"),
    (b"GGUF", "it is a file of GGUF"),
    (b"<", "it is a web page"),
)
"""How files begin that people take for something else, and what they are."""


class Weights(NamedTuple):
    """A file of weights in the cache.

    Attributes:
        path: Path of the tensors, to be memory-mapped.
        sha256: SHA-256 (hex) of the original file.
    """

    path: Path
    sha256: str


def beside(uri: str) -> bytes | None:
    """A small file beside the weights, such as a configuration; None if there is none.

    Raises:
        InputError: If the object or the network fails.
    """
    if not is_remote(uri):
        path = local_path(uri)
        with reading(path):
            return path.read_bytes() if path.is_file() else None
    remote = remote_object(uri)
    try:
        size_bytes = remote.look().size_bytes
    except InputError as error:
        if "no such object" in str(error):
            return None
        raise
    if size_bytes > MOST_BYTES:
        raise InputError(f"{shown(uri)}: refused: a file of {size_bytes} bytes (at most {MOST_BYTES})")
    with tempfile.TemporaryFile() as file:
        remote.download(file, size_bytes)
        file.seek(0)
        return file.read()


def another_kind(start: bytes) -> str:
    """What a file is, by how it begins, that is not what its name says; empty where that is not known."""
    return next((told for begins, told in KINDS if start.startswith(begins)), "")


def held_weights(uri: str, sha256: str = "") -> Weights:
    """The weights behind a path or URI, in the cache, which fetches them if necessary.

    Args:
        uri: Path or URI of a safetensors file.
        sha256: SHA-256 (hex) that the file must have; empty accepts any. If the cache has these weights, neither a
            remote nor a local file is needed.

    Raises:
        InputError: If there is no such file, it is not a safetensors file, or it has another SHA-256 (the message has
            both); or if the network or the cache fails.
    """
    folder = cache_folder(FOLDER)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_remote(uri):
            kept = used(folder, sha256) if sha256 else None
            return Weights(kept, sha256) if kept else _fetched(uri, sha256, folder)
        return _of_file(local_path(uri), sha256, folder)
    except OSError as error:
        raise InputError(f"{shown(uri)}: can't be kept in the cache {folder} ({CACHE}): {error}") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within the block, what the system says of a file of the user's own is told as such.

    Raises:
        InputError: If it can't be read, naming it.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file.

    Raises:
        InputError: If the file is not a safetensors file.
    """
    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: no whole file of safetensors: {error}") from None


def _fetched(uri: str, sha256: str, folder: Path) -> Weights:
    remote = remote_object(uri)
    with _locked(folder, identity := Uri.parse(uri).identity):
        if sha256 and (kept := used(folder, sha256)):  # another process was first
            return Weights(kept, sha256)
        seen, record = remote.look(), folder / f"{_key(identity)}.json"
        stamped = [seen.size_bytes, seen.version]
        known = _recorded(record, stamped) if seen.version else ""
        if known and sha256 in ("", known) and (kept := used(folder, known)):
            return Weights(kept, known)
        check_room(folder, seen.size_bytes, shown(uri))
        with part_of(folder) as file:
            remote.download(file, seen.size_bytes)
            file.flush()
            found = _kept(Path(file.name), shown(uri), file_sha256(Path(file.name)), sha256, folder)
        _record(record, stamped, found.sha256)
        return found


def _of_file(path: Path, sha256: str, folder: Path) -> Weights:
    with reading(path):
        is_there, is_file = path.exists(), path.is_file()
    if sha256 and not is_there and (kept := used(folder, sha256)):
        return Weights(kept, sha256)  # the very weights, wherever they were
    if not is_file:
        raise InputError(f"{path}: no such file of weights" + (" (it is a folder)" if is_there else ""))
    where = os.path.realpath(path)
    with _locked(folder, where):
        record, now_s = folder / f"{_key(where)}.json", time.time()
        with reading(path):
            seen = list(stamp(path))
            digest = _recorded(record, seen) or file_sha256(path)
        if now_s - max(seen[-2:]) / 1e9 > RESTS_S:
            _record(record, seen, digest)
        return _kept(path, str(path), digest, sha256, folder, seen)


def _recorded(record: Path, seen: list[Any]) -> str:
    """The digest that a file had when it was last seen as it is now; empty if nobody knows."""
    with suppress(OSError, ValueError, KeyError):
        known = parse_object(record.read_bytes(), where=record.name)
        return str(known["sha256"]) if known["stamp"] == seen else ""
    return ""


def _record(record: Path, seen: list[Any], digest: str) -> None:
    beside = record.with_suffix(".json.new")
    beside.write_text(json.dumps({"stamp": seen, "sha256": digest}))
    beside.replace(record)


def _kept(path: Path, where: str, digest: str, sha256: str, folder: Path, seen: list[Any] | None = None) -> Weights:
    """The weights of a file in the cache; one of somebody's own must still look as it was `seen` before its digest."""
    if sha256 and digest != sha256:
        raise InputError(f"{where}: its SHA-256 is {digest}, but {sha256} is asked for: these are other weights")
    if kept := used(folder, digest):
        return Weights(kept, digest)
    check_room(folder, path.stat().st_size, where)
    with part_of(folder) as target:
        _lay_anew(path, where, target)
        if seen is not None and list(stamp(path)) != seen:
            raise InputError(f"{where}: changes while it is read: wait until whoever writes it is done")
        return Weights(put(folder, digest, target), digest)


def _lay_anew(path: Path, where: str, target: Any) -> None:
    """Write the tensors of a file, floats as float32, each at a multiple of `ALIGNED`."""
    import torch

    try:
        with safe_open(path, "pt") as source:
            kinds = {name: source.get_slice(name) for name in source.keys()}  # noqa: SIM118
            # Those of odd sizes last, since safetensors know no gaps.
            sizes = {name: _size_bytes(kind, f"{where}: {name}") for name, kind in kinds.items()}
            names = sorted(kinds, key=lambda name: (sizes[name] % ALIGNED != 0, name))
            start, header = 0, {}
            for name in names:
                size = sizes[name]
                kind = "F32" if kinds[name].get_dtype() in FLOATS else kinds[name].get_dtype()
                shape = kinds[name].get_shape()
                header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, start + size]}
                start += size
            text = json.dumps(header).encode()
            text += b" " * (-(8 + len(text)) % ALIGNED)
            target.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                tensor = source.get_tensor(name)
                tensor = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
                target.write(np.ascontiguousarray(tensor.numpy()).tobytes())
    except SafetensorError as error:
        with path.open("rb") as file:
            other = another_kind(file.read(MAGIC_BYTES))
        raise InputError(
            f"{where}: no whole file of safetensors, the one kind of weights that is read: {other or error}"
        ) from None


def _size_bytes(found: Any, where: str) -> int:
    """Size in bytes of a slice, written anew."""
    count = int(np.prod(found.get_shape(), dtype=np.int64))
    sizes = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
    kind = found.get_dtype()
    if kind not in FLOATS and kind not in sizes:
        raise InputError(f"{where}: weights of type {kind} can't be read; give float32, float16 or bfloat16")
    return count * (4 if kind in FLOATS else sizes[kind])


def _key(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


@contextmanager
def _locked(folder: Path, text: str) -> Iterator[None]:
    with (folder / f"{_key(text)}.lock").open("a") as file:
        lock(file, wait=True)
        yield
