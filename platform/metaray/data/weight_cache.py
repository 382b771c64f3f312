"""What lies in a node's cache of weights: who uses it, and what is swept from it.

    SHA256.safetensors   weights
    SHA256.use           locked by all processes that have asked for these weights, until they end; its time is that of
                         the last time that one did; stays
    *.part               a download or a copy under way, locked by its process; or what a killed one left
    sweep.lock           locked by whoever sweeps, or begins a part; stays

Whenever weights are added, parts that nobody works on go, and then the least recently used weights, until the rest
takes no more than $METARAY_CACHE_GB (the stores of the cache may take as much). Weights that some process uses stay.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO

from safetensors import SafetensorError, safe_open

from metaray.data.cache import CACHE, LIMIT, cache_limit_bytes
from metaray.data.verified import stamp
from metaray.errors import InputError
from metaray.file_lock import lock, share
from metaray.json_text import parse_object

BLOCK_BYTES = 1 << 22

_used: dict[Path, int] = {}
"""Descriptors of the files whose locks this process shares, by the weights that it uses so."""
_alone = Lock()


def used(folder: Path, digest: str) -> Path | None:
    """The cached weights with this digest, if they are there; no process deletes them until this process ends."""
    kept = folder / f"{digest}.safetensors"
    _hold(kept)
    return kept if kept.is_file() and _is_sound(kept) else None


@contextmanager
def part_of(folder: Path) -> Iterator[IO[bytes]]:
    """A temporary file for new contents of the cache; it is deleted after the block, unless it was `put`."""
    with _sweeping(folder):  # nobody takes it for one that was left
        file = tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)  # noqa: SIM115 - closed below
        lock(file)
    with file:
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)


def put(folder: Path, digest: str, part: IO[bytes]) -> Path:
    """Make a part the weights of a digest; then sweep."""
    part.flush()
    os.fsync(part.fileno())
    kept, laid = folder / f"{digest}.safetensors", file_sha256(Path(part.name))
    _hold(kept)
    kept.with_suffix(".seal").unlink(missing_ok=True)  # of other weights in this place
    Path(part.name).replace(kept)
    _seal(kept, laid)
    sweep(folder, cache_limit_bytes())
    return kept


def check_room(folder: Path, size_bytes: int, where: str) -> None:
    """Check that there is room for weights of about this size, deleting others from the cache if necessary.

    Raises:
        InputError: If there is none; the message names `where` the weights come from.
    """
    limit_bytes = cache_limit_bytes()
    if size_bytes > limit_bytes:
        raise InputError(f"{where}: {size_bytes} bytes, but the cache may hold {limit_bytes} bytes: raise {LIMIT}")
    lacking = size_bytes - shutil.disk_usage(folder).free
    if lacking > 0:
        with _sweeping(folder):
            held_bytes = sum(size for _, size, _ in _weights(folder))
        sweep(folder, max(0, held_bytes - lacking))
    if (free_bytes := shutil.disk_usage(folder).free) < size_bytes:
        raise InputError(
            f"{where}: {size_bytes} bytes, but the disk of the cache {folder} has {free_bytes} bytes free: set {CACHE} "
            "to a folder on a larger one"
        )


def sweep(folder: Path, limit_bytes: int) -> None:
    """Delete what killed processes left, and then the least recently used weights until the rest fits; none in use."""
    with _sweeping(folder):
        for part in folder.glob("*.part"):
            with _free(part) as free:
                if free:
                    part.unlink(missing_ok=True)
        weights = _weights(folder)
        excess = sum(size for _, size, _ in weights) - limit_bytes
        for _, size, path in weights:
            if excess <= 0:
                return
            with _free(path.with_suffix(".use")) as free:
                if free:
                    path.unlink(missing_ok=True)
                    path.with_suffix(".seal").unlink(missing_ok=True)
                    excess -= size


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _is_sound(kept: Path) -> bool:
    """Whether weights are what was put there; what is damaged goes, to be fetched again.

    Those without a seal, as older versions left them, are sealed as they are, if they are whole.
    """
    seal = kept.with_suffix(".seal")
    laid: str | None
    try:
        said = parse_object(seal.read_bytes(), where=seal.name)
        if said.get("stamp") == list(stamp(kept)):
            return True
        laid, known = file_sha256(kept), said.get("sha256")
    except (OSError, InputError):
        laid = known = file_sha256(kept) if _is_whole(kept) else None
    if laid is None or laid != known:
        kept.unlink(missing_ok=True)
        return False
    _seal(kept, laid)
    return True


def _is_whole(kept: Path) -> bool:
    try:
        with safe_open(kept, "np"):
            return True
    except (SafetensorError, OSError):
        return False


def _seal(kept: Path, laid: str) -> None:
    seal = kept.with_suffix(".seal")
    with tempfile.NamedTemporaryFile("w", dir=kept.parent, suffix=".new", delete=False) as file:
        json.dump({"stamp": list(stamp(kept)), "sha256": laid}, file)
    Path(file.name).replace(seal)


def _hold(kept: Path) -> None:
    """Share the lock of weights until this process ends, and note that they are used now."""
    use = kept.with_suffix(".use")
    with _alone:
        # Where somebody has deleted the whole cache meanwhile, it is another file by now.
        if kept not in _used or not use.exists() or not os.path.samestat(os.fstat(_used[kept]), use.stat()):
            # A bare descriptor: nothing closes it before the process ends.
            descriptor = os.open(use, os.O_RDWR | os.O_CREAT, 0o600)
            share(descriptor)
            _used[kept] = descriptor
        os.utime(_used[kept])


def _weights(folder: Path) -> list[tuple[int, int, Path]]:
    """Last use, size and path of all weights, the least recently used first."""
    found = [path for path in folder.glob("*.safetensors") if re.fullmatch("[0-9a-f]{64}", path.stem)]
    return sorted((_last_use_ns(path), path.stat().st_size, path) for path in found)


def _last_use_ns(path: Path) -> int:
    use = path.with_suffix(".use")
    return (use if use.exists() else path).stat().st_mtime_ns


@contextmanager
def _sweeping(folder: Path) -> Iterator[None]:
    """One at a time."""
    with (folder / "sweep.lock").open("a") as file:
        lock(file, wait=True)
        yield


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    """Whether nobody has the lock of a file, which is held within the block then."""
    with path.open("a") as file:
        yield lock(file)
