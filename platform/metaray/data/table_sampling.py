"""Which rows of a table make many tasks, drawn side by side: bit for bit what `OpenedTable.drawn` draws for each."""

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import SPARSE, Split
from metaray.data.episode_spec import Sizes
from metaray.data.many_draws import ManyDraws
from metaray.data.opened_table import OpenedTable, Rows, Strip
from metaray.data.task import Side, Task

MOST_WORDS = 2**22
"""Largest number of random numbers held at once; tasks that need more are drawn one by one."""


class DrawnTables(NamedTuple):
    """The rows of B tasks, one task after the other.

    Attributes:
        groups: Group numbers [B] of the tasks.
        support: Row indices of all support sets.
        query: Row indices of all query sets.
        support_count: Number of rows of each support set.
        query_counts: Number of rows [B] of each query set.
    """

    groups: Rows
    support: Rows
    query: Rows
    support_count: int
    query_counts: Rows


def side_by_side(opened: OpenedTable, split: Split, sizes: Sizes, tasks: int) -> bool:
    """Whether the random numbers of so many tasks are few enough to be held at once."""
    strip = opened.strips[split]
    most = strip.largest
    if sizes.queries is not None:
        most = min(most, strip.counts.shape[1] * SPARSE * (sizes.shots + sizes.queries))
    return tasks * most <= MOST_WORDS


def draw_tables(opened: OpenedTable, split: Split, sizes: Sizes, draws: ManyDraws) -> DrawnTables:
    """Draw a group for each task, one of those that are large enough, then its rows.

    Args:
        opened: The table.
        split: Split whose groups are drawn from; at least one of them must be large enough.
        sizes: Sizes of all tasks.
        draws: Random numbers of the tasks.
    """
    eligible, strip = opened.eligible(split, sizes), opened.strips[split]
    place = eligible[draws.between(0, len(eligible) - 1)]
    if opened.ordered and (sizes.queries is None or strip.counts.shape[1] > 1):
        support, query, counts = _in_order(strip, place, sizes, draws)
    elif sizes.queries is None:
        chosen = draws.choose_each(strip.counts[place], None)
        rows = strip.starts[place][..., None] + chosen
        support = rows[..., : sizes.shots]
        query, counts = _behind(rows, np.array(sizes.shots), strip.counts[place])
    else:
        chosen = draws.choose_each(strip.counts[place], sizes.shots + sizes.queries)
        if opened.ordered:
            chosen.sort(axis=-1)
        rows = strip.starts[place][..., None] + chosen
        support, query = rows[..., : sizes.shots], rows[..., sizes.shots :]
        counts = np.full(len(place), query[0].size)
    rows_of = [strip.rows[side.reshape(-1)] for side in (support, query)]
    return DrawnTables(strip.groups[place], rows_of[0], rows_of[1], support[0].size, counts)


def _in_order(strip: Strip, place: Rows, sizes: Sizes, draws: ManyDraws) -> tuple[Rows, Rows, Rows]:
    """Where the first rows of each pool [B, C] are the support: the places of support and query, rows of each query."""
    starts, counts = strip.starts[place], strip.counts[place]
    support = starts[..., None] + np.arange(sizes.shots)
    last = strip.rows[support[..., -1]].max(axis=1)
    ends = starts + counts
    earlier = np.array(
        [
            [np.searchsorted(strip.rows[start:end], row, side="right") for start, end in zip(*pools, strict=True)]
            for row, *pools in zip(last, starts, ends, strict=True)
        ]
    )
    if sizes.queries is None:
        rows = starts[..., None] + np.arange(counts.max())
        return support, *_behind(rows, earlier, counts)
    query = (starts + earlier)[..., None] + draws.choose_each(counts - earlier, sizes.queries)
    return support, query, np.full(len(place), query[0].size)


def _behind(rows: Rows, first: Rows, stop: Rows) -> tuple[Rows, Rows]:
    """The rows at first .. stop - 1 of each pool [B, C, most], one after the other, and how many [B] each task has.

    Args:
        rows: Rows of each pool.
        first: [B, C], or a number for all.
        stop: [B, C].
    """
    places = np.arange(rows.shape[-1])
    within = (places >= first[..., None]) & (places < stop[..., None])
    return rows[within], np.count_nonzero(within, axis=(1, 2))


def stacks_of_rows(drawn: DrawnTables, support: Side[NDArray[Any]], query: Side[NDArray[Any]]) -> list[Task]:
    """Tasks from the rows of all tasks: neighbours of equal shape form one stack; views of both sides.

    Args:
        drawn: Rows of all tasks.
        support: Support rows [rows, ...] of all tasks.
        query: Query rows [rows, ...] of all tasks.
    """
    found, task, support_row, query_row = [], 0, 0, 0
    for count, alike in groupby(drawn.query_counts.tolist()):
        tasks = len(list(alike))
        rows = tasks * drawn.support_count
        sides = [
            Side(*(array[first : first + of].reshape(tasks, -1, *array.shape[1:]) for array in side))
            for side, first, of in ((support, support_row, rows), (query, query_row, tasks * count))
        ]
        found.append(Task(sides[0], sides[1], class_ids=drawn.groups[task : task + tasks, None]))
        task, support_row, query_row = task + tasks, support_row + rows, query_row + tasks * count
    return found
