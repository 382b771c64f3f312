"""Judges learners and baselines assay by assay: so many support sets of each, all other molecules as the query."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.data import GroupTable
from metaray.data.draws import Draws, Split
from metaray.data.task import Side, Task
from metaray.episodes.episode import Episode, EpisodeSpec, stack
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.tasks.ranking import area_under_roc

CPU = torch.device("cpu")
OTHER_LABELS = "labels in meta-train, no support"


class Rival(NamedTuple):
    """What is judged.

    Attributes:
        algorithm: that adapts.
        meta: its parameters.
        context: of its network.
    """

    algorithm: Algorithm
    meta: Tensors
    context: Context


class Judged(NamedTuple):
    """An episode of an assay.

    Attributes:
        assay: its name.
        episode: as algorithms see it.
        rows: [queries] of the file.
    """

    assay: str
    episode: TensorEpisode
    rows: NDArray[np.int64]


def episodes_of(source: GroupTable, spec: EpisodeSpec, split: Split, seed: int, repeats: int) -> Iterator[Judged]:
    """Of each assay of a split as many episodes, whatever its size.

    Args:
        source: of the assays.
        spec: how many molecules are known, and how many are asked about.
        split: of the assays.
        seed: of the support sets.
        repeats: support sets an assay.
    """
    opened, sizes = source._open(), spec.largest
    for number, place in enumerate(opened.eligible(split, sizes)):
        pools = opened.pools[split][place]
        for repeat in range(repeats):
            index = number * repeats + repeat
            rows = opened.drawn(pools, sizes, Draws(seed, split, index))
            file = opened.file
            sides = [Side(file.x[one], file.targets(pools.group, one).astype(np.int64)) for one in rows]
            task = Task(sides[0], sides[1], class_ids=np.zeros(1, dtype=np.int64))
            batch = stack([Episode(task, index, index)])
            ((episode,),) = chunks(batch, 1, CPU, source, split)
            yield Judged(file.meta.groups[pools.group], episode, rows[1])


def areas(
    rivals: dict[str, Rival], source: GroupTable, episodes: Iterator[Judged]
) -> dict[str, dict[str, list[float]]]:
    """The area under the ROC curve of each rival on the same episodes, by rival and by assay.

    Besides them that of `other_labels`, which knows nothing of the assay.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in (OTHER_LABELS, *rivals)}
    others = other_labels(source)
    with torch.no_grad():
        for assay, episode, rows in episodes:
            area = area_under_roc(torch.from_numpy(others[rows]), episode.query.y)
            found[OTHER_LABELS].setdefault(assay, []).append(float(area))
            for name, rival in rivals.items():
                outcome = rival.algorithm.outcomes(rival.meta, episode, rival.context)
                found[name].setdefault(assay, []).append(float(outcome.score))
    return found


def other_labels(source: GroupTable) -> NDArray[np.float64]:
    """[rows] by how much each molecule's labels in the assays of meta-train exceed those of others, on average.

    0 where it has none. Where assays share their molecules it tells, without a single example of a new assay, how often
    a molecule is active at all: what is learned should be worth more than that.
    """
    file = source._open().file
    labels = file.y[:, list(file.meta.splits["meta-train"])].astype(np.float64)
    known = ~np.isnan(labels)
    above = np.where(known, labels - np.nanmean(labels, axis=0), 0.0)
    return np.asarray(above.sum(axis=1) / np.maximum(known.sum(axis=1), 1))
