"""k-means, and partitions by scaled dimensions."""

import numpy as np
import pytest

from metaray.data.clustering import k_means, nearest, partitions_of
from metaray.errors import InputError

RANDOM = np.random.default_rng(0)
BLOBS = (RANDOM.standard_normal((6, 5)) * 40).astype(np.float32)
TRUTH = np.arange(6).repeat(30)
VECTORS = (BLOBS[TRUTH] + RANDOM.standard_normal((180, 5))).astype(np.float32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same_parts(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two partitions are the same, whatever their clusters' numbers."""
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_what_lies_together_is_together(seed: int) -> None:
    assert same_parts(k_means(VECTORS, 6, generator(seed)), TRUTH)


def test_a_fixed_point_of_lloyds_algorithm() -> None:
    vectors = generator().standard_normal((400, 3)).astype(np.float32)
    labels = k_means(vectors, 12, generator(1))
    centres = np.stack([vectors[labels == one].astype(np.float64).mean(axis=0) for one in range(12)])
    distances = np.linalg.norm(vectors[:, None].astype(np.float64) - centres[None], axis=2)
    assert np.array_equal(distances.argmin(axis=1), labels)


def test_nearest_is_what_the_definition_says() -> None:
    vectors, centres = (generator(one).standard_normal((5000, 4)).astype(np.float32) for one in (0, 1))
    labels, distances = nearest(vectors, centres[:9])
    wanted = np.square(vectors[:, None].astype(np.float64) - centres[None, :9]).sum(axis=2)
    assert np.array_equal(labels, wanted.argmin(axis=1))
    assert np.allclose(distances, wanted.min(axis=1), atol=1e-5)


def test_each_cluster_has_somebody_unless_vectors_are_equal() -> None:
    assert set(k_means(VECTORS, 180, generator()).tolist()) == set(range(180))
    equal = np.ones((8, 2), dtype=np.float32)
    assert len(k_means(equal, 3, generator())) == 8


def test_partitions_are_pure_functions_of_their_place() -> None:
    vectors = generator().standard_normal((120, 6)).astype(np.float32)
    few, many = (list(partitions_of(vectors, clusters=7, partitions=count, seed=3)) for count in (2, 4))
    assert all(np.array_equal(one, other) for one, other in zip(few, many, strict=False))
    assert not any(same_parts(many[0], other) for other in many[1:])
    other = next(partitions_of(vectors, clusters=7, partitions=1, seed=4))
    assert not np.array_equal(other, many[0])


def test_scaling_reveals_what_one_dimension_hides() -> None:
    """Beside the first partition, which sees the loud dimension alone, others see the quiet one too."""
    loud, quiet = np.repeat([0.0, 10.0], 40), np.tile([0.0, 9.0], 40)
    vectors = np.stack([loud, quiet], axis=1).astype(np.float32)
    parts = list(partitions_of(vectors, clusters=2, partitions=20, seed=0))
    assert same_parts(parts[0], loud)
    assert any(same_parts(one, quiet) for one in parts[1:]) and any(same_parts(one, loud) for one in parts[1:])


@pytest.mark.parametrize("clusters", [1, 181])
def test_as_many_clusters_as_there_can_be(clusters: int) -> None:
    with pytest.raises(InputError, match=f"{clusters} clusters? asked for, of 180 examples"):
        next(partitions_of(VECTORS, clusters=clusters, partitions=1, seed=0))


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    list(partitions_of(VECTORS, clusters=3, partitions=2, seed=0, progress=lambda *done: told.append(done)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("exponent", [-140, -80, 60, 120])
def test_the_unit_of_vectors_does_not_matter(exponent: int) -> None:
    """Also where float32 has no numbers for their squares."""
    vectors = np.random.default_rng(0).standard_normal((60, 5)).round(1).astype(np.float32)
    scaled = np.ldexp(vectors, exponent)
    for one, other in zip(
        partitions_of(vectors, clusters=4, partitions=2, seed=0),
        partitions_of(scaled, clusters=4, partitions=2, seed=0),
        strict=True,
    ):
        assert np.array_equal(one, other)
