"""A stream of classes: a learner's task is extended by more and more of them, and judged on all that have arrived.

The classes of order i, their support and their queries are those of episode i of as many ways as the stream has
classes; they arrive in the episode's order.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.inputs import Inputs, mapped, take
from metaray.episodes.sampler import sample_episode
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.learners.growth import How, Learned, grown, learned
from metaray.learners.learner import Learner

AT_ONCE = 128
"""Queries that are asked together: each is compared with all classes."""


def require_streamable(learner: Learner) -> None:
    """Refuse a learner whose tasks can't take new classes, or whose answers depend on the other queries of a call.

    Raises:
        InputError: If it is such a learner; the message says which, and what would be right.
    """
    if not learner.task.labels_vary:
        raise InputError(f"a stream is of classes, but the learner is for {learner.task}")
    if learner.ways is not None:
        raise InputError(
            f"a {learner.algorithm.kind} learner has one output a class and is fixed to its {learner.ways} ways, so "
            "its tasks take no new classes; a stream needs a learner of any number of ways, such as protonet or r2d2"
        )
    if learner.heeds_batch:
        raise InputError(
            "the answers of this learner depend on the other queries of the same call (transductive batch norm), so "
            "they would change with the classes that are judged together; train with --set "
            "algorithm.batch_norm=inductive"
        )


def stream_scores(
    learner: Learner,
    source: Source,
    split: Split,
    spec: EpisodeSpec,
    classes: Sequence[int],
    *,
    order: int,
    seed: int = 0,
    how: How = "together",
    tell: Callable[[int], None] = lambda count: None,
) -> list[float]:
    """The score on the queries of all classes that have arrived, after each of `classes`.

    Args:
        learner: Learner that `require_streamable` allows.
        source: Source of the classes.
        split: Part whose classes arrive.
        spec: Shots and queries of each; its ways are the last of `classes`.
        classes: Numbers of classes after which it is judged, ascending, from 2 on.
        order: Number of the order in which they arrive.
        seed: Seed of all orders.
        how: "together" extends the task from one number of classes to the next at once, which for what equals adapting
            to everything changes nothing; "continue" extends it by one class after the other.
        tell: Told the number of classes that have arrived.
    """
    task = sample_episode(source, spec, split, seed, order).task
    support, query = (_tensors(side.x, side.y, source) for side in (task.support, task.query))
    found: list[float] = []
    with torch.no_grad():
        for count, adapted in _stream(learner, support, classes, how):
            tell(count)
            if count in classes:
                found.append(_score(learner, adapted, _of(query, 0, count), count))
    return found


def _stream(learner: Learner, support: Examples, classes: Sequence[int], how: How) -> Iterator[tuple[int, Learned]]:
    """The task after each extension, and of how many classes it is."""
    algorithm, meta, before = learner.algorithm, learner.meta, classes[0]
    task = learned(algorithm, meta, _of(support, 0, before), learner.context(before))
    yield before, task
    stops = classes[1:] if how == "together" else range(before + 1, classes[-1] + 1)
    for count in stops:
        task = grown(algorithm, meta, task, _of(support, before, count), learner.context(count), how)
        before = count
        yield count, task


def _score(learner: Learner, task: Learned, query: Examples, count: int) -> float:
    context = learner.context(count)
    parts = range(0, len(query.y), AT_ONCE)
    ask: Callable[[Inputs], Tensor] = partial(_asked, learner, task, count)
    output = torch.cat([ask(take(query.x, slice(start, start + AT_ONCE))) for start in parts])
    return float(context.score(output, query.y))


def _asked(learner: Learner, task: Learned, count: int, x: Inputs) -> Tensor:
    return learner.algorithm.predict(learner.meta, task.adapted, x, learner.context(count)).float()


def _tensors(x: Inputs, y: NDArray[np.int64], source: Source) -> Examples:
    compact = mapped(lambda part: torch.from_numpy(np.array(part)), x)
    return Examples(source.preprocessing.normalize(compact), torch.from_numpy(np.array(y)))


def _of(examples: Examples, first: int, end: int) -> Examples:
    """Those of the classes from `first` on, before `end`."""
    rows = ((examples.y >= first) & (examples.y < end)).nonzero()[:, 0]
    return Examples(take(examples.x, rows), examples.y[rows])
