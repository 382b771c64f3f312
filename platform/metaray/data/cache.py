"""Where a node keeps what it would otherwise have to fetch, or to find out, again."""

import os
from pathlib import Path

from metaray.errors import InputError

CACHE = "METARAY_CACHE"
LIMIT = "METARAY_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0


def cache_folder(name: str) -> Path:
    """A folder of the cache: $METARAY_CACHE, by default `metaray` in $XDG_CACHE_HOME, or in ~/.cache."""
    general = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaray"
    return Path(os.environ.get(CACHE) or general).expanduser().absolute() / name


def cache_limit_bytes() -> int:
    """Size limit of the cached stores together, and likewise of the cached weights: $METARAY_CACHE_GB.

    Raises:
        InputError: If the variable is not a size.
    """
    given = os.environ.get(LIMIT) or str(DEFAULT_LIMIT_GB)
    try:
        limit = float(given) * 1e9
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise InputError(f"{LIMIT} is the cache's size in GB, such as {DEFAULT_LIMIT_GB:g} (got {given!r})")
    return int(limit)
