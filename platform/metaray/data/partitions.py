"""Partitions of a store's unlabelled examples, by clustering vectors of them; kept as a store file of their own.

The file has the classes, counts and split schemes of the store whose examples were clustered, and for each example in
place of its content the number of its cluster in each partition, or -1 where it was left out: only those of meta-train
are clustered. Its origin says which vectors those were.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaray.data.clustering import partitions_of
from metaray.data.names import counted
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.remote import held, is_remote, local_path, local_paths
from metaray.data.replacing import check_replaceable
from metaray.data.servers import shown
from metaray.data.store_file import StoreFile, read_store, write_store
from metaray.data.verified import open_store, stamp_of
from metaray.errors import InputError, unknown

IMPORTER = "cluster"
STORE = "store_fingerprint"
"""Key in a file's origin for the store whose examples were clustered or embedded."""
LEFT_OUT = -1.0
MAKE = "make them by `metaray data cluster`"


@dataclass(frozen=True)
class ClusterReport:
    """The result of a clustering.

    Attributes:
        path: Path of the written file.
        examples: Number of examples that were clustered.
        sizes: Number of examples of each cluster, [partitions * clusters].
    """

    path: Path
    examples: int
    sizes: NDArray[np.int64]

    def enough(self, examples: int) -> float:
        """The share of all clusters with so many examples or more."""
        return float((self.sizes >= examples).mean())


def cluster_store(
    vectors: str,
    out: Path,
    *,
    clusters: int,
    partitions: int,
    split: str = "default",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ClusterReport:
    """Cluster the vectors of meta-train, regardless of class, and write the clusters of each partition.

    Args:
        vectors: Path or URI of a store of vectors, such as `metaray data embed` writes.
        out: Path of the file to write.
        clusters: Number of clusters of each partition.
        partitions: Number of partitions, each under a random scaling of the dimensions; see `metaray.data.clustering`.
        split: Split scheme whose meta-train classes are clustered.
        seed: Seed of the scalings and of the initial centres.
        progress: Function that is called with the numbers of finished and of all partitions.

    Raises:
        InputError: If there is no such store or split, examples are not finite vectors, there are fewer of them than
            clusters, or the path cannot be written.
    """
    check_replaceable(out, local_paths(vectors))
    if partitions < 1:
        raise InputError(f"partitions: at least 1 (got {partitions})")
    if not 0 <= seed < 1 << 63:
        raise InputError(f"seed: from 0 to 2^63 - 1 (got {seed})")
    with held(vectors) as local:
        file = open_store(local)
    rows = rows_of(file, split, shown(vectors))
    found = np.full((len(file.examples), partitions), LEFT_OUT, dtype=np.float32)
    some = _vectors(file, rows, shown(vectors))
    sizes = []
    made = partitions_of(some, clusters=clusters, partitions=partitions, seed=seed, progress=progress)
    for place, labels in enumerate(made):
        found[rows, place] = labels
        sizes.append(np.bincount(labels, minlength=clusters))
    meta = file.meta
    write_store(
        out,
        examples=found,
        counts=meta.counts,
        class_names=meta.class_names,
        schemes=meta.schemes,
        preprocessing=VectorPreprocessing(size=partitions),
        origin={
            **{"importer": IMPORTER, STORE: meta.origin.get(STORE, meta.fingerprint), "vectors": meta.fingerprint},
            **{"split": split, "clusters": str(clusters), "partitions": str(partitions), "seed": str(seed)},
        },
    )
    return ClusterReport(out, len(rows), np.concatenate(sizes))


def rows_of(file: StoreFile, split: str, where: str) -> NDArray[np.int64]:
    """Rows of the examples of meta-train.

    Raises:
        InputError: If there is no such split scheme, or it has no examples.
    """
    if split not in file.meta.schemes:
        raise unknown(f"split scheme of {where}", split, file.meta.schemes)
    ids = np.array(file.meta.schemes[split].get("meta-train", ()), dtype=np.int64)
    runs = [np.arange(file.offsets[one], file.offsets[one + 1]) for one in np.sort(ids)]
    if not runs:
        raise InputError(f"{where}: meta-train of split {split!r} has no classes, and so no examples to cluster")
    return np.concatenate(runs)


def _vectors(file: StoreFile, rows: NDArray[np.int64], where: str) -> NDArray[np.float32]:
    shape, dtype = file.meta.feature_shape, np.dtype(file.meta.dtype)
    if len(shape) != 1 or None in shape or dtype.kind != "f":
        raise InputError(
            f"{where}: clustered are vectors of numbers, but its examples are {dtype.name} of shape {shape}: send them "
            "through an encoder first, by `metaray data embed`"
        )
    found = np.ascontiguousarray(file.examples[rows], dtype=np.float32)
    if not np.isfinite(found).all():
        bad = int(rows[np.flatnonzero(~np.isfinite(found).all(axis=1))[0]])
        raise InputError(f"{where}: example {bad} has numbers that are not finite")
    return found


@dataclass(frozen=True)
class Partitions:
    """Clusters as a store has classes: number p * clusters + c is cluster c of partition p.

    Attributes:
        order: [partitions * examples] rows of the clustered store, cluster by cluster.
        offsets: [partitions * clusters + 1] where each cluster lies in `order`.
        partition: [partitions * clusters] the partition of each cluster.
        clusters: Number of clusters of a partition.
        fingerprint: Fingerprint of the file.
    """

    order: NDArray[np.int64]
    offsets: NDArray[np.int64]
    partition: NDArray[np.int64]
    clusters: int
    fingerprint: str


def partitions_stamp(path: str) -> tuple[int, ...]:
    """See `Source.stamp`."""
    return () if is_remote(path) else stamp_of(local_path(path), read_store)


def open_partitions(path: str, store: StoreFile, split: str, where: str) -> Partitions:
    """Read partitions of the examples of a store from a file.

    Args:
        path: Path or URI of the file.
        store: Store whose examples were clustered.
        split: Split scheme whose meta-train was clustered.
        where: Name of the store for messages.

    Raises:
        InputError: If there is no such file, or its partitions are of other examples or other splits.
    """
    with held(path) as local:
        file = open_store(local)
    meta, ours = file.meta, store.meta
    if meta.origin.get("importer") != IMPORTER:
        raise InputError(f"{shown(path)}: a store, but none of partitions: {MAKE}")
    if meta.origin.get(STORE) != ours.fingerprint or meta.counts != ours.counts:
        raise InputError(
            f"{shown(path)}: its partitions are of the examples of {str(meta.origin.get(STORE))[:12]}..., but "
            f"{where} is {ours.fingerprint[:12]}...: {MAKE} from vectors of that"
        )
    rows = rows_of(store, split, where)
    labels = file.examples[rows]
    if (missing := int((labels < 0).any(axis=1).sum())) > 0:
        raise InputError(
            f"{shown(path)}: its partitions are of meta-train of split {meta.origin.get('split')!r}; of that of "
            f"{split!r} {counted(missing, 'example is', 'examples are')} in no cluster: {MAKE} with --split {split}"
        )
    return _opened(rows, labels.astype(np.int64), meta.fingerprint)


def _opened(rows: NDArray[np.int64], labels: NDArray[np.int64], fingerprint: str) -> Partitions:
    clusters, partitions = int(labels.max()) + 1, labels.shape[1]
    order = np.concatenate([rows[one.argsort(kind="stable")] for one in labels.T])
    sizes = np.concatenate([np.bincount(one, minlength=clusters) for one in labels.T])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Partitions(order, offsets, np.arange(partitions).repeat(clusters), clusters, fingerprint)
