"""Judges learners and baselines assay by assay: so many support sets of each, all other molecules as the query."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.data import GroupTable
from metaray.data.draws import Draws, Split
from metaray.data.task import Side, Task
from metaray.episodes.episode import Episode, EpisodeSpec, stack
from metaray.episodes.tensors import TensorEpisode, chunks

CPU = torch.device("cpu")


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


def episodes_of(
    source: GroupTable, spec: EpisodeSpec, split: Split, seed: int, repeats: int
) -> Iterator[tuple[str, TensorEpisode]]:
    """Episodes and the names of their assays: of each assay of a split as many, whatever its size.

    Args:
        source: of the assays.
        spec: how many molecules are known, and how many are asked about.
        split: of the assays.
        seed: of the support sets.
        repeats: support sets an assay.
    """
    opened, sizes = source._open(), spec.largest
    for number, pools in enumerate(opened.eligible(split, sizes)):
        for repeat in range(repeats):
            index = number * repeats + repeat
            rows = opened.drawn(pools, sizes, Draws(seed, split, index))
            file = opened.file
            sides = [Side(file.x[one], file.targets(pools.group, one).astype(np.int64)) for one in rows]
            task = Task(sides[0], sides[1], class_ids=np.zeros(1, dtype=np.int64))
            batch = stack([Episode(task, index, index)])
            ((episode,),) = chunks(batch, 1, CPU, source, split)
            yield file.meta.groups[pools.group], episode


def areas(rivals: dict[str, Rival], episodes: Iterator[tuple[str, TensorEpisode]]) -> dict[str, dict[str, list[float]]]:
    """The area under the ROC curve of each rival on the same episodes, by rival and by assay."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in rivals}
    with torch.no_grad():
        for assay, episode in episodes:
            for name, rival in rivals.items():
                outcome = rival.algorithm.outcomes(rival.meta, episode, rival.context)
                found[name].setdefault(assay, []).append(float(outcome.score))
    return found
