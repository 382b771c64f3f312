"""What an episode is.

Shape letters, used everywhere in metaray:

    B  episodes in a meta-batch (or in a chunk of one)
    N  ways: classes in an episode
    K  shots: support examples a class
    Q  queries: query examples a class
    *feature  the shape of one example, for images (channels, height, width)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metaray.config import Config
from metaray.data.inputs import stacked
from metaray.data.ragged import Compact


class EpisodeSpec(Config):
    """How many classes an episode has, and how many examples of each.

    Attributes:
        ways: classes, N; 1 where tasks are regression.
        shots: support examples a class, K.
        queries: query examples a class, Q.
    """

    ways: int = Field(default=1, ge=1)
    shots: int = Field(ge=1)
    queries: int = Field(ge=1)

    def __str__(self) -> str:
        queries = f"{self.queries} {'query' if self.queries == 1 else 'queries'}"
        if self.ways == 1:
            return f"{self.shots}-shot, {queries}"
        return f"{self.ways}-way {self.shots}-shot, {queries} a class"


@dataclass(frozen=True)
class Episode:
    """Support and query of one sampled task; a pure function of (source, spec, split, seed, index).

    Attributes:
        support_x: [N*K, *feature], compact (images stay uint8), class-major; or a flat dict of such arrays.
        support_y: [N*K] int64; in regression [K, target_size] float32.
        query_x: [N*Q, *feature].
        query_y: [N*Q] int64, or [Q, target_size].
        index: the episode's place in its split's endless sequence.
        seed: 64 bits of the episode's own, from which everything random in its training step derives.
        class_ids: [N] int64, the source-wide class behind each label.
    """

    support_x: Compact
    support_y: NDArray[Any]
    query_x: Compact
    query_y: NDArray[Any]
    index: int
    seed: int
    class_ids: NDArray[np.int64]


@dataclass(frozen=True)
class MetaBatch:
    """Consecutive episodes, stacked: every array is contiguous with a leading axis B.

    Attributes:
        support_x: [B, N*K, *feature].
        support_y: [B, N*K], or [B, K, target_size].
        query_x: [B, N*Q, *feature].
        query_y: [B, N*Q].
        index: [B] int64.
        seed: [B] uint64.
        class_ids: [B, N].
    """

    support_x: Compact
    support_y: NDArray[Any]
    query_x: Compact
    query_y: NDArray[Any]
    index: NDArray[np.int64]
    seed: NDArray[np.uint64]
    class_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)


def stack(episodes: Sequence[Episode]) -> MetaBatch:
    """Stack episodes of one spec.

    Raises:
        ValueError: if there is none, or their shapes differ.
    """
    return MetaBatch(
        support_x=stacked([e.support_x for e in episodes]),
        support_y=np.stack([e.support_y for e in episodes]),
        query_x=stacked([e.query_x for e in episodes]),
        query_y=np.stack([e.query_y for e in episodes]),
        index=np.array([e.index for e in episodes], dtype=np.int64),
        seed=np.array([e.seed for e in episodes], dtype=np.uint64),
        class_ids=np.stack([e.class_ids for e in episodes]),
    )
