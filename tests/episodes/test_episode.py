"""What an episode and a stack of them are."""

import numpy as np
import pytest

from metaray.data.task import Side, Task
from metaray.episodes.episode import Episode, EpisodeSpec, stack
from metaray.errors import InputError


def episode(index: int, *, ways: int = 2) -> Episode:
    x, y = np.full((ways, 3), index, np.uint8), np.arange(ways)
    return Episode(Task(Side(x, y), Side(x + 1, y), y + 10), index=index, seed=2**64 - 1 - index)


def test_stack_keeps_order_and_bits() -> None:
    batch = stack([episode(5), episode(3)])
    assert len(batch) == 2
    assert batch.index.tolist() == [5, 3] and batch.seed.tolist() == [2**64 - 6, 2**64 - 4]
    (stacked,) = batch.stacks
    support, query, class_ids = stacked.task
    assert support.x[:, 0, 0].tolist() == [5, 3] and query.x[:, 0, 0].tolist() == [6, 4]
    assert class_ids.tolist() == [[10, 11]] * 2


def test_stack_refuses_nothing_at_all() -> None:
    with pytest.raises(ValueError, match="no episodes to stack"):
        stack([])


def test_only_neighbours_of_equal_shape_are_stacked() -> None:
    batch = stack([episode(0), episode(1), episode(2, ways=3), episode(3), episode(4)])
    assert [stacked.index.tolist() for stacked in batch.stacks] == [[0, 1], [2], [3, 4]]
    assert len(batch) == 5 and batch.index.tolist() == [0, 1, 2, 3, 4]
    assert batch.seed.tolist() == [2**64 - 1 - index for index in range(5)]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 2, [[0, 1]]), (1, 2, [[1]]), (3, 5, [[3, 4]]), (1, 4, [[1], [2], [3]]), (2, 3, [[2]])],
)
def test_rows_are_one_stack_where_all_are_of_equal_shape(start: int, stop: int, expected: list[list[int]]) -> None:
    batch = stack([episode(0), episode(1), episode(2, ways=3), episode(3), episode(4)])
    found = list(batch.rows(start, stop))
    assert [stacked.index.tolist() for stacked in found] == expected
    for stacked in found:
        assert stacked.task.support.x[:, 0, 0].tolist() == stacked.index.tolist()


@pytest.mark.parametrize(("field", "least"), [("ways", 1), ("shots", 1), ("queries", 1)])
def test_spec_has_a_least_value(field: str, least: int) -> None:
    values = {"ways": 5, "shots": 1, "queries": 1}
    EpisodeSpec.parse({**values, field: least}, where="episodes")
    with pytest.raises(InputError, match=rf"episodes: {field}: .*{least}.*\(got {least - 1}\)"):
        EpisodeSpec.parse({**values, field: least - 1}, where="episodes")


def test_spec_reads_well() -> None:
    assert str(EpisodeSpec(ways=5, shots=1, queries=1)) == "5-way 1-shot, 1 query a class"
    assert str(EpisodeSpec(ways=20, shots=5, queries=15)) == "20-way 5-shot, 15 queries a class"
