import numpy as np

from metaray.reports.confusion import Labelled, by_class, most_confused


def labelled(classes: list[int], truth: list[int], told: list[int]) -> Labelled:
    return Labelled(np.array(classes), np.array(truth), np.array(told), np.full(len(truth), 0.5))


EPISODES = [
    labelled([7, 8, 9], [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 2]),
    labelled([8, 7, 3], [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 2, 2]),
]


def test_by_class_with_the_labels_of_each_episode() -> None:
    found = by_class(EPISODES)
    assert [(one.number, one.right, one.asked) for one in found] == [(7, 1, 4), (9, 1, 2), (8, 4, 4), (3, 2, 2)]
    assert found[0].share == 0.25


def test_pairs_count_only_episodes_that_had_both() -> None:
    found = most_confused(EPISODES, 9)
    assert [tuple(one) for one in found] == [(7, 8, 3, 4), (9, 7, 1, 2)]
    assert most_confused(EPISODES, 1) == found[:1]
    assert most_confused([labelled([1, 2], [0, 1], [0, 1])], 9) == []


def test_many_mistakes_weigh_more_than_few() -> None:
    many = [labelled([1, 2], [0] * 9 + [0], [1] * 9 + [0])]
    few = [labelled([3, 4], [0, 0], [1, 1])]
    assert [one.truth for one in most_confused([*few, *many], 2)] == [1, 3]
