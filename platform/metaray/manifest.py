"""Folders of files with checksums: the manifest is written last and names the rest."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import PurePath

MANIFEST = "manifest.json"


class Damaged(ValueError):
    """A folder whose files are not what its manifest says."""


def sealed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files, and last a manifest with the size and SHA-256 of each."""
    entries = {
        name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    text = json.dumps({"format": 1, "files": entries}, indent=2, sort_keys=True) + "\n"
    return {**files, MANIFEST: text.encode()}


def unsealed(read: Callable[[str], bytes]) -> dict[str, bytes]:
    """Read a sealed folder, checking every file.

    Args:
        read: gives the bytes of a file by its name.

    Raises:
        Damaged: if the manifest or a file is missing, truncated or altered; says which.
    """
    try:
        listed = json.loads(read(MANIFEST))["files"].items()
        entries = [(name, entry["size_bytes"], entry["sha256"]) for name, entry in listed]
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST} is unreadable: {error}") from None
    files = {}
    for name, size_bytes, sha256 in entries:
        if PurePath(name).name != name:
            raise Damaged(f"{MANIFEST} names {name!r}, which is no plain file name")
        try:
            data = read(name)
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None
        if len(data) != size_bytes:
            raise Damaged(f"{name} has {len(data)} bytes instead of {size_bytes}")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(f"{name} does not match its checksum")
        files[name] = data
    return files
