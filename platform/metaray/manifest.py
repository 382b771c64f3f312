"""Checksums of what metaray writes: of folders, whose manifest comes last and names the rest, and of JSON objects."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from metaray.errors import InputError
from metaray.json_text import parse_json, parse_object

MANIFEST = "manifest.json"
CHECKSUM = "sha256"
"""The key of a JSON object that holds the SHA-256 of the rest."""


class Damaged(ValueError):
    """A sealed folder whose files differ from its manifest."""


def sealed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files, and last a manifest with the size and SHA-256 of each."""
    entries = {
        name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    text = json.dumps({"format": 1, "files": entries}, indent=2, sort_keys=True) + "\n"
    return {**files, MANIFEST: text.encode()}


def unsealed(read: Callable[[str], bytes], *, only: str | None = None) -> dict[str, bytes]:
    """Read a sealed folder, checking every file.

    Args:
        read: Function that returns the bytes of a file by its name.
        only: Name of the single file to read; None reads all files.

    Raises:
        Damaged: If the manifest or a file is missing, truncated or altered; the message says which.
    """
    try:
        listed = parse_json(read(MANIFEST), where=MANIFEST)["files"].items()
        entries = [(name, entry["size_bytes"], entry["sha256"]) for name, entry in listed]
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST} is unreadable: {error}") from None
    files = {}
    for name, size_bytes, sha256 in entries:
        if only not in (None, name):
            continue
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


def checksum(tree: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a JSON object, independent of the order of keys and of white space."""
    # By way of JSON: reading it back makes keys strings, which sort otherwise than numbers.
    text = json.dumps(json.loads(json.dumps(tree)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed_json(tree: Mapping[str, Any]) -> bytes:
    """JSON text of an object, with its checksum as an additional key."""
    return (json.dumps({**tree, CHECKSUM: checksum(tree)}, indent=2, sort_keys=True) + "\n").encode()


def unsealed_json(text: str | bytes, *, where: str) -> dict[str, Any]:
    """Parse the text that `sealed_json` returned; text from before checksums existed is accepted as it is.

    Args:
        text: Text of the file.
        where: Origin of the text, for messages.

    Raises:
        InputError: If the text is not a JSON object, or not the one that was written.
    """
    tree = parse_object(text, where=where)
    found = tree.pop(CHECKSUM, None)
    if found is not None and found != checksum(tree):
        raise InputError(
            f"{where}: damaged: it does not match its checksum (if it was you who changed it, remove its {CHECKSUM!r})"
        )
    return tree
