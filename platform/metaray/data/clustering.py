"""k-means in numpy: partitions of vectors into clusters, each a pure function of the vectors and a seed."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from metaray.data.names import counted
from metaray.errors import InputError

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]

MOST_ROUNDS = 100
HARMLESS = 30
"""Exponents of two between which vectors may lie as they are."""
AT_ONCE = 4096
"""Vectors whose distances to all centres are held together."""


def partitions_of(
    vectors: Vectors,
    *,
    clusters: int,
    partitions: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Labels]:
    """Partitions by k-means: the first of the vectors themselves, the others after random scalings.

    Hsu, Levine and Finn ("Unsupervised learning via meta-learning", ICLR 2019, section 3): other scalings are other
    metrics, under which other things are alike. As in the authors' code each factor is uniform in [0, 1), and k-means
    begins once, by k-means++.

    Args:
        vectors: Vectors [n, d].
        clusters: Number of clusters k.
        partitions: Number of partitions.
        seed: Seed of the scalings and initial centres; a partition does not depend on how many follow it.
        progress: Function that is called with the numbers of finished and of all partitions.

    Yields:
        Cluster numbers [n], 0 .. k-1; some clusters may be empty.

    Raises:
        InputError: If there are fewer vectors than clusters.
    """
    if not 2 <= clusters <= len(vectors):
        found = counted(len(vectors), "example")
        raise InputError(f"{counted(clusters, 'cluster')} asked for, of {found}: give 2 clusters to one an example")
    vectors = _in_range(vectors)
    for place in range(partitions):
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, place], dtype=np.uint64)))
        scaled = vectors if place == 0 else vectors * generator.random(vectors.shape[1], dtype=np.float32)
        yield k_means(scaled, clusters, generator)
        if progress is not None:
            progress(place + 1, partitions)


def _in_range(vectors: Vectors) -> Vectors:
    """Vectors whose squares float32 can hold: very large and very small ones are multiplied by a power of two."""
    largest = float(np.abs(vectors).max(initial=0.0))
    exponent = math.frexp(largest)[1]
    return vectors if abs(exponent) <= HARMLESS else np.ldexp(vectors, -exponent)


def k_means(vectors: Vectors, clusters: int, generator: np.random.Generator) -> Labels:
    """Lloyd's algorithm with k-means++ initialisation, until nothing changes, or for `MOST_ROUNDS` rounds.

    A cluster that loses all its vectors takes over the one that lies farthest from its own centre.

    Args:
        vectors: Vectors [n, d], at least as many as clusters.
        clusters: Number of clusters k.
        generator: Generator for the initial centres, the only random choice.

    Returns:
        Cluster numbers [n]; a cluster is empty only if vectors are equal.
    """
    centres = _spread_out(vectors, clusters, generator)
    labels, distances = nearest(vectors, centres)
    for _ in range(MOST_ROUNDS):
        centres = _means(vectors, labels, distances, clusters)
        before = labels
        labels, distances = nearest(vectors, centres)
        if np.array_equal(labels, before):
            break
    return labels


def nearest(vectors: Vectors, centres: Vectors) -> tuple[Labels, Vectors]:
    """Number of the nearest centre of each vector [n], the first of equally near ones, and the squared distance."""
    labels, distances = np.empty(len(vectors), dtype=np.int64), np.empty(len(vectors), dtype=np.float32)
    lengths = np.square(centres).sum(axis=1)
    for start in range(0, len(vectors), AT_ONCE):
        some = vectors[start : start + AT_ONCE]
        found = lengths - 2 * (some @ centres.T)
        chosen = found.argmin(axis=1)
        labels[start : start + AT_ONCE] = chosen
        least = found[np.arange(len(some)), chosen] + np.square(some).sum(axis=1)
        distances[start : start + AT_ONCE] = np.maximum(least, 0)
    return labels, distances


def _spread_out(vectors: Vectors, clusters: int, generator: np.random.Generator) -> Vectors:
    """k-means++ (Arthur and Vassilvitskii, SODA 2007): each next centre is a vector, by its squared distance."""
    rows = [int(generator.random() * len(vectors))]
    lengths = np.square(vectors).sum(axis=1)
    least = np.full(len(vectors), np.inf, dtype=np.float32)
    while len(rows) < clusters:
        latest = vectors[rows[-1]]
        far = np.maximum(lengths - 2 * (vectors @ latest) + np.square(latest).sum(), 0)
        far[rows[-1]] = 0
        least = np.minimum(least, far)
        ends = least.astype(np.float64).cumsum()
        chosen = int(np.searchsorted(ends, generator.random() * ends[-1], side="right"))
        # Where all that are left equal a centre, any is as good.
        rows.append(chosen if ends[-1] > 0 else len(rows))
    found: Vectors = vectors[rows]
    return found


def _means(vectors: Vectors, labels: Labels, distances: Vectors, clusters: int) -> Vectors:
    """[k, d] the mean of each cluster."""
    sizes = np.bincount(labels, minlength=clusters)
    empty = np.flatnonzero(sizes == 0)
    order = labels.argsort(kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    centres = np.empty((clusters, vectors.shape[1]), dtype=np.float32)
    full = sizes > 0
    centres[full] = np.add.reduceat(vectors[order], starts[full], axis=0) / sizes[full, None]
    centres[empty] = vectors[(-distances).argsort(kind="stable")[: len(empty)]]
    return centres
