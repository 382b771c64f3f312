"""JSON on standard output."""

import json
import math
from collections.abc import Mapping
from typing import Any


def print_json(tree: Any) -> None:
    """Print it; a number that is none, as the interval of a single episode is, becomes null, for which JSON has a word.

    Args:
        tree: Tree of JSON types, tuples and mappings.
    """
    print(json.dumps(_finite(tree), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(tree: Any) -> Any:
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, Mapping):
        return {key: _finite(one) for key, one in tree.items()}
    return [_finite(one) for one in tree] if isinstance(tree, list | tuple) else tree
