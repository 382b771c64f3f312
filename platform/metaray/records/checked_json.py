"""Small JSON files that a run or a search leaves, each with its checksum: read whole and right, or refused."""

from collections.abc import Mapping
from typing import Any, TypeVar

from metaray.config import Config
from metaray.errors import InputError
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.storage import Storage

C = TypeVar("C", bound=Config)


def write_record(storage: Storage, name: str, tree: Mapping[str, Any]) -> None:
    """Write a file that `read_record` reads."""
    storage.write(name, sealed_json(tree))


def read_record(storage: Storage, name: str, kind: type[C], *, remedy: str) -> C:
    """Read a JSON record and verify its checksum; records from before checksums are accepted if valid.

    Args:
        storage: Storage that holds the file.
        name: Name of the file.
        kind: Class of the record.
        remedy: What a user can do about a damaged file, for the message.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If the file is not what was written; the message names it.
    """
    where = f"{storage.shown}/{name}"
    try:
        return kind.parse(unsealed_json(storage.read(name), where=where), where=where)
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
