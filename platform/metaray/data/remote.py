"""Class stores and tables that lie elsewhere: a node fetches each once into its cache, however many processes ask.

The cache is `stores` in $METARAY_CACHE (by default `metaray` in $XDG_CACHE_HOME, or in ~/.cache). An entry is named by
its URI and by what the server says of the object, so that a replaced object is another entry:

    KEY.arrow   the store or table, whole and verified
    KEY.part    a download under way, or what a killed one left
    KEY.lock    locked by the process that fetches, opens or sweeps the entry; its time is that of the last use; stays
    KEY.json    where it came from, and how often it was fetched; stays
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from metaray.data.access import with_access
from metaray.data.cache import CACHE, LIMIT, cache_folder, cache_limit_bytes
from metaray.data.servers import HttpObject, ObjectVersion, RemoteObject, S3Object, shown
from metaray.data.store_file import StoreFile, read_store
from metaray.data.tables.table_file import TableFile, is_table_file, read_table
from metaray.data.verified import open_verified
from metaray.errors import InputError, unknown
from metaray.file_lock import lock
from metaray.json_text import parse_object
from metaray.uris import Uri

LOCAL = "file"
SCHEMES = (LOCAL, "http", "https", "s3")


def is_remote(uri: str) -> bool:
    """Whether the store must be fetched; a plain path and a file:// URI are local.

    Raises:
        InputError: If the scheme is none of `SCHEMES`.
    """
    return _scheme(uri) != LOCAL


def local_path(uri: str) -> Path:
    """Local path of the file behind a path or URI, which is fetched if necessary; see `held` for how long it stays.

    Raises:
        InputError: If the object, the network or the cache fails.
    """
    with held(uri) as path:
        return path


def local_paths(uri: str) -> list[Path]:
    """The file behind a path or a file:// URI; none of what must be fetched, of which the original is not here."""
    return [] if is_remote(uri) else [_local(uri)]


@contextmanager
def held(uri: str) -> Iterator[Path]:
    """Within the block, the local file behind a path or URI, which no process deletes from the cache.

    A file that is opened or memory-mapped inside the block stays readable for as long as it is open.

    Raises:
        InputError: If the object, the network or the cache fails.
    """
    if not is_remote(uri):
        yield _local(uri)
        return
    remote = remote_object(uri)
    seen = remote.look()
    folder = cache_folder("stores")
    with ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"{_key(uri, seen)}.arrow"
            # Whoever comes second waits here for the first, and then finds the store.
            stack.enter_context(_locked(path))
            if not path.is_file() or path.stat().st_size != seen.size_bytes or not _is_whole(path):
                _fetch(remote, seen.size_bytes, path)
            os.utime(path.with_suffix(".lock"))
        except OSError as error:
            raise InputError(f"{remote.shown}: can't be kept in the cache {folder} ({CACHE}): {error}") from None
        yield path


def remote_object(uri: str) -> RemoteObject:
    """The remote object that a URI names."""
    return S3Object(uri) if _scheme(uri) == "s3" else HttpObject(with_access(uri))


def _scheme(uri: str) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    scheme = found[1].lower() if found else LOCAL
    if scheme not in SCHEMES:
        raise unknown(f"scheme of {shown(uri)!r}", scheme, SCHEMES)
    return scheme


def _local(uri: str) -> Path:
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{uri}: a file:// URI names no host: file:///{parts.netloc}{parts.path} is a path from /")
    return Path(unquote(parts.path))


def _reader(path: Path) -> Callable[..., StoreFile | TableFile]:
    """What opens a file of its kind; of what is neither it says so."""
    return read_table if is_table_file(path) else read_store


def _is_whole(path: Path) -> bool:
    try:
        open_verified(path, _reader(path))
    except InputError:
        return False  # fetched again
    return True


def _key(uri: str, seen: ObjectVersion) -> str:
    return hashlib.sha256(f"{Uri.parse(uri).identity}\n{seen.size_bytes}\n{seen.version}".encode()).hexdigest()


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the entry's lock, which goes with the process; False if another has it and it isn't waited for."""
    with path.with_suffix(".lock").open("a") as file:
        yield lock(file, wait=wait)


def _fetch(remote: RemoteObject, size_bytes: int, path: Path) -> None:
    """Bring the store to `path`, whole and verified or not at all. The caller holds the entry's lock."""
    limit_bytes = cache_limit_bytes()
    if size_bytes > limit_bytes:
        raise InputError(
            f"{remote.shown}: {size_bytes} bytes, but the cache may hold {limit_bytes} bytes: raise {LIMIT}"
        )
    _make_room(remote, size_bytes, path.parent)
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as target:
            remote.download(target, size_bytes)
            target.flush()
            os.fsync(target.fileno())
        try:
            _reader(partial)(partial, verify=True)
        except InputError as error:
            what = str(error).removeprefix(f"{partial}: ")
            raise InputError(f"{remote.shown}: fetched whole ({size_bytes} bytes), but {what}") from None
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _note(path, {"uri": remote.shown, "size_bytes": size_bytes, "fetched": datetime.now(UTC).isoformat()})
    _sweep(path.parent, limit_bytes)


def _note(path: Path, facts: dict[str, Any]) -> None:
    notes = path.with_suffix(".json")
    fetches = 0
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # a power cut may leave it empty
        fetches = int(parse_object(notes.read_bytes(), where=notes.name)["fetches"])
    beside = path.with_suffix(".json.new")
    beside.write_text(json.dumps({**facts, "fetches": fetches + 1}))
    beside.replace(notes)


def _make_room(remote: RemoteObject, size_bytes: int, folder: Path) -> None:
    """See that the disk has room, if need be by sweeping."""
    lacking = size_bytes - shutil.disk_usage(folder).free
    if lacking > 0:
        _sweep(folder, sum(size for _, size, _ in _stores(folder)) - lacking)
        lacking = size_bytes - shutil.disk_usage(folder).free
    if lacking > 0:
        free_bytes = size_bytes - lacking
        raise InputError(
            f"{remote.shown}: {size_bytes} bytes, but the disk of the cache {folder} has {free_bytes} bytes free: "
            f"set {CACHE} to a folder on a larger one"
        )


def _sweep(folder: Path, limit_bytes: int) -> None:
    """Delete what killed fetches left, then the least recently used stores until the rest fits; none that is locked."""
    with _locked(folder / "sweep"):  # one at a time: nobody else deletes what is listed here
        for partial in folder.glob("*.part"):
            with _locked(partial, wait=False) as free:
                if free:
                    partial.unlink(missing_ok=True)
        stores = _stores(folder)
        excess = sum(size for _, size, _ in stores) - limit_bytes
        for _, size, path in stores:
            if excess <= 0:
                return
            with _locked(path, wait=False) as free:
                if free:
                    path.unlink()
                    excess -= size


def _stores(folder: Path) -> list[tuple[int, int, Path]]:
    """Last use, size and path of each store of the cache, the least recently used first."""
    found = [path for path in folder.glob("*.arrow") if re.fullmatch("[0-9a-f]{64}", path.stem)]
    return sorted((_last_use_ns(path), path.stat().st_size, path) for path in found)


def _last_use_ns(path: Path) -> int:
    # Not the store's own times, by which it is known to be unchanged.
    lock = path.with_suffix(".lock")
    return (lock if lock.exists() else path).stat().st_mtime_ns
