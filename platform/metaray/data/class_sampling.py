"""Which classes and examples of a store make a task: drawn, required and counted."""

from collections import Counter
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec, Sizes
from metaray.data.many_draws import ManyDraws
from metaray.data.meta_dataset import LEAST_EXAMPLES, meta_dataset_sizes
from metaray.data.names import counted
from metaray.data.opened_store import OpenedStore, Pools
from metaray.errors import InputError

Ids = NDArray[np.int64]


class DrawnTask(NamedTuple):
    """The classes and examples of one task; or of B tasks one after the other, with B * N classes in place of N.

    Attributes:
        base: Base class ids [N].
        turns: Quarter turns [N] of each class.
        support: Rows of the support examples, class by class.
        query: Rows of the query examples, class by class; none is a support example.
        shots: Number of support examples of each class, [N] or one number for all.
        queries: Number of query examples of each class, [N] or one number for all.
    """

    base: Ids
    turns: Ids
    support: Ids
    query: Ids
    shots: Ids | int
    queries: Ids | int


def draw_task(opened: OpenedStore, split: Split, spec: EpisodeSpec, draws: Draws) -> DrawnTask | None:
    """Draw the sizes, the group, the classes and their examples of one task.

    Sizes are drawn if they are not fixed, and a group if tasks stay within one. All draws are uniform, classes and
    examples without replacement; the group is one of those with enough classes, however many more it has. In
    Meta-Dataset's sampling the ways are drawn after the group, and the numbers of examples after the classes.

    Returns:
        The task; None if `split` has too few classes or examples.
    """
    if spec.sampling == "meta-dataset":
        return _imbalanced(opened, split, spec, draws)
    sizes = spec.draw(draws)
    pool = _pool(opened, split, sizes.least_examples, sizes.ways, draws)
    if pool is None:
        return None
    base, turns = _classes(pool, opened.turns, sizes.ways, draws)
    counts = opened.counts(base)
    if sizes.queries is None:
        shots = np.full(sizes.ways, sizes.shots)
        return _unequal(opened, base, turns, shots, counts - shots, draws)
    rows = opened.file.offsets[base][:, None] + draws.choose(counts, sizes.least_examples)
    support, query = rows[:, : sizes.shots].reshape(-1), rows[:, sizes.shots :].reshape(-1)
    return DrawnTask(base, turns, support, query, sizes.shots, sizes.queries)


def draw_tasks(opened: OpenedStore, split: Split, spec: EpisodeSpec, draws: ManyDraws) -> DrawnTask | None:
    """Draw B tasks of fixed size, each as `draw_task` draws it.

    Returns:
        The tasks; None if `split` has too few classes or examples.
    """
    assert spec.is_fixed, spec
    ways, shots, queries = spec.largest
    least = spec.largest.least_examples
    pools = _able(opened, split, least, ways)
    if not len(pools.sizes):
        return None
    pool = draws.between(0, len(pools.sizes) - 1)
    chosen = draws.choose((pools.sizes[pool] * opened.turns)[:, None], ways)[:, 0]
    base = pools.classes[pools.starts[pool][:, None] + chosen // opened.turns]
    rows = opened.file.offsets[base][..., None] + draws.choose(opened.counts(base), least)
    support, query = rows[..., :shots].reshape(-1), rows[..., shots:].reshape(-1)
    assert queries is not None, spec
    return DrawnTask(base.reshape(-1), (chosen % opened.turns).reshape(-1), support, query, shots, queries)


def _imbalanced(opened: OpenedStore, split: Split, spec: EpisodeSpec, draws: Draws) -> DrawnTask | None:
    pool = _pool(opened, split, LEAST_EXAMPLES, spec.fewest_ways, draws)
    if pool is None:
        return None
    ways = draws.between(spec.fewest_ways, min(spec.most_ways, len(pool) * opened.turns))
    base, turns = _classes(pool, opened.turns, ways, draws)
    counts = opened.counts(base)
    assert spec.most_queries is not None
    sizes = meta_dataset_sizes(
        counts,
        most_queries=spec.most_queries,
        most_a_class=spec.most_shots,
        most_support=spec.most_support,
        draws=draws,
    )
    return _unequal(opened, base, turns, sizes.shots, np.full(ways, sizes.queries), draws)


def _able(opened: OpenedStore, split: Split, examples: int, ways: int) -> Pools:
    """What has enough classes, rotations included."""
    return opened.pools(split, examples).able(-(-ways // opened.turns))


def _pool(opened: OpenedStore, split: Split, examples: int, ways: int, draws: Draws) -> Ids | None:
    """The base classes to draw from; where tasks stay within groups, those of one that has enough."""
    pools = _able(opened, split, examples, ways)
    if not len(pools.sizes):
        return None
    place = draws.between(0, len(pools.sizes) - 1)
    return pools.classes[pools.starts[place] : pools.starts[place] + pools.sizes[place]]


def _classes(pool: Ids, turns: int, ways: int, draws: Draws) -> tuple[Ids, Ids]:
    chosen = draws.choose(np.array([len(pool) * turns], dtype=np.int64), ways)[0]
    return pool[chosen // turns], chosen % turns


def _unequal(opened: OpenedStore, base: Ids, turns: Ids, shots: Ids, queries: Ids, draws: Draws) -> DrawnTask:
    """A task with the given numbers of examples of each class."""
    chosen = draws.choose_each(opened.counts(base), shots + queries)
    rows = [first + places for first, places in zip(opened.file.offsets[base], chosen, strict=True)]
    support = np.concatenate([one[:count] for one, count in zip(rows, shots, strict=True)])
    query = np.concatenate([one[count:] for one, count in zip(rows, shots, strict=True)])
    return DrawnTask(base, turns, support, query, shots, queries)


def require_tasks(opened: OpenedStore, split: Split, spec: EpisodeSpec, where: str) -> None:
    """Check that `split` has enough classes with enough examples for every episode of `spec`.

    Args:
        opened: The store.
        split: Split whose classes are counted.
        spec: Spec of the episodes; in Meta-Dataset's sampling its fewest ways count.
        where: Name of the store for messages.

    Raises:
        InputError: If there are too few classes or examples; the message has the numbers.
    """
    if spec.fewest_ways < 2:
        raise InputError(f"ways: a task needs at least 2 classes (got {spec.fewest_ways})")
    plain = spec.sampling == "plain"
    sizes = spec.largest if plain else Sizes(spec.fewest_ways, 1, 1)
    least = sizes.least_examples
    found = int(opened.pools(split, least).sizes.max()) * opened.turns
    if found >= sizes.ways:
        return
    asked = f"{sizes.ways} ways" if spec.fixed_ways else f"up to {sizes.ways} ways"
    asked = asked if plain else f"{sizes.ways} ways or more"
    rest = "" if sizes.queries is None else f" + {counted(sizes.queries, 'query', 'queries')}"
    each = f"at least {counted(least, 'example')} ({counted(sizes.shots, 'shot')}{rest or ' + 1 query or more'})"
    if opened.groups is None:
        has = f"{split} has {counted(found, 'class', 'classes')} with {each}"
    else:
        groups = len(np.unique(opened.groups[opened.classes[split]]))
        most = counted(found, "class", "classes")
        has = f"no group of {split} ({groups} in all) has more than {most} with {each}"
    in_all = counted(len(opened.classes[split]) * opened.turns, "class", "classes")
    raise InputError(f"{asked} asked for, but {has}; {in_all} in all ({where})")


def count_tasks(opened: OpenedStore, split: Split, spec: EpisodeSpec) -> int:
    """Number of distinct tasks: a set of classes, each with a support set and a query set.

    The sum over the ways of the elementary symmetric polynomials in the classes' own numbers of choices
    comb(n, shots) * comb(n - shots, queries): exact, but where shots or queries are ranges, and in Meta-Dataset's
    sampling, a lower bound, the tasks with the fewest of these.
    """
    if spec.sampling == "plain":
        sizes = spec.smallest
    else:
        eligible = opened.counts(opened.eligible(split, LEAST_EXAMPLES))
        # The smallest class of a task allows for so many queries, or more; each class may give a single shot.
        most = int(eligible.min()) // 2 if len(eligible) else 1
        sizes = Sizes(spec.fewest_ways, 1, min(spec.most_queries or 1, most))
    total = 0
    for pool in opened.pools(split, sizes.least_examples).each():
        choices = Counter(_choices(n, sizes) for n in opened.counts(pool).tolist())
        numbers = elementary_symmetric({w: m * opened.turns for w, m in choices.items()}, spec.most_ways)
        total += sum(numbers[spec.fewest_ways :])
    return total


def _choices(examples: int, sizes: Sizes) -> int:
    """The support and query sets of a class."""
    left = examples - sizes.shots
    return comb(examples, sizes.shots) * (1 if sizes.queries is None else comb(left, sizes.queries))


def elementary_symmetric(multiplicities: dict[int, int], degree: int) -> list[int]:
    """The coefficients of t**0 .. t**degree in the product of (1 + w*t)**m over the items w: m."""
    total = [1] + [0] * degree
    for weight, times in multiplicities.items():
        factor = [comb(times, j) * weight**j for j in range(degree + 1)]
        total = [sum(total[i] * factor[d - i] for i in range(d + 1)) for d in range(degree + 1)]
    return total
