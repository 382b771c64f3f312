"""Where a node keeps what it would otherwise have to fetch, or to find out, again."""

import os
from pathlib import Path

CACHE = "METARAY_CACHE"


def cache_folder(name: str) -> Path:
    """A folder of the cache: $METARAY_CACHE, by default `metaray` in $XDG_CACHE_HOME, or in ~/.cache."""
    general = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaray"
    return Path(os.environ.get(CACHE) or general).expanduser().absolute() / name
