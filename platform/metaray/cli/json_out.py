"""JSON on standard output."""

import json
from typing import Any

from metaray.json_text import finite


def print_json(tree: Any) -> None:
    """Print it; a number that is none, as the interval of a single episode is, becomes null, for which JSON has a word.

    Args:
        tree: Tree of JSON types, tuples and mappings.
    """
    print(json.dumps(finite(tree), indent=2, ensure_ascii=False, allow_nan=False))
