"""Learners whose answers depend on the other queries of a call: when that matters, and how it is said."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from metaray.episodes.episode import EpisodeSpec
from metaray.errors import BatchMatters

PACKAGE = str(Path(__file__).parents[1])


def doubt(spec: EpisodeSpec, ways: int, found: Sequence[int] | None, count: int) -> str | None:
    """Why predictions for a batch of queries may be worse than in the learner's evaluation; None without a reason.

    Args:
        spec: Spec of the evaluation, with the number of queries of each class, or the smallest such number.
        ways: Number of classes of the task; 1 if it has none.
        found: Index of the predicted class of each query; None if values are predicted.
        count: Number of queries.
    """
    least = spec.fewest_queries
    each = f"{least} of each class" if found is not None else "as a task had"
    if count < ways * least:
        or_more = "" if spec.queries == least else " or more"
        why = f"it was judged on {ways * least} queries{or_more} at once, {each}, and now gets {count}"
    elif found is not None and 2 * len(set(found)) <= ways:
        seen = f"{len(set(found))} of {ways} classes"
        why = f"it was judged on as many queries of each class, but in these it finds {seen}"
    else:
        return None
    return (
        "the answers of this learner depend on the other queries of the same call (transductive batch norm): "
        f"{why}. Give it queries of all classes at once, or train with --set algorithm.batch_norm=inductive"
    )


def warn_of(text: str) -> None:
    """Warn of a doubt, as of the line outside this package that asked."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, BatchMatters, stacklevel=level)
