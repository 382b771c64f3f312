"""What an episode and a stack of them are."""

import numpy as np
import pytest

from metaray.episodes.episode import Episode, EpisodeSpec, stack
from metaray.errors import InputError


def episode(index: int, *, ways: int = 2) -> Episode:
    x, y = np.full((ways, 3), index, np.uint8), np.arange(ways)
    return Episode(x, y, x + 1, y, index=index, seed=2**64 - 1 - index, class_ids=y + 10)


def test_stack_keeps_order_and_bits() -> None:
    batch = stack([episode(5), episode(3)])
    assert len(batch) == 2
    assert batch.index.tolist() == [5, 3] and batch.seed.tolist() == [2**64 - 6, 2**64 - 4]
    assert batch.support_x[:, 0, 0].tolist() == [5, 3] and batch.query_x[:, 0, 0].tolist() == [6, 4]
    assert batch.class_ids.tolist() == [[10, 11]] * 2


@pytest.mark.parametrize("episodes", [[], [episode(0), episode(1, ways=3)]], ids=["none", "two shapes"])
def test_stack_refuses(episodes: list[Episode]) -> None:
    with pytest.raises(ValueError, match="stack|same shape"):
        stack(episodes)


@pytest.mark.parametrize(("field", "least"), [("ways", 1), ("shots", 1), ("queries", 1)])
def test_spec_has_a_least_value(field: str, least: int) -> None:
    values = {"ways": 5, "shots": 1, "queries": 1}
    EpisodeSpec.parse({**values, field: least}, where="episodes")
    with pytest.raises(InputError, match=rf"episodes: {field}: .*{least}.*\(got {least - 1}\)"):
        EpisodeSpec.parse({**values, field: least - 1}, where="episodes")


def test_spec_reads_well() -> None:
    assert str(EpisodeSpec(ways=5, shots=1, queries=1)) == "5-way 1-shot, 1 query a class"
    assert str(EpisodeSpec(ways=20, shots=5, queries=15)) == "20-way 5-shot, 15 queries a class"
