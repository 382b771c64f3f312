"""Classes that look broken."""

import numpy as np
import pytest

from metaray.data.uniform import uniform_classes

NOISE = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
BLANK = np.zeros((2, 1, 4, 4), np.uint8)
EQUAL = NOISE[[0, 0]]


def test_nothing_to_say() -> None:
    assert uniform_classes(np.concatenate([NOISE, NOISE[:1]]), [2, 1], ["a", "b"]) == ()


@pytest.mark.parametrize(
    ("groups", "sentences"),
    [
        ([BLANK, NOISE], ("class 'c0' holds only blank images (one value throughout)",)),
        (
            [np.concatenate([BLANK[:1], BLANK[:1] + np.uint8(9)]), NOISE],
            ("class 'c0' holds only blank images (one value throughout)",),
        ),
        ([NOISE // np.uint8(16), NOISE], ("class 'c0' holds only faint images (of 255 levels they span 16 at most)",)),
        ([NOISE, EQUAL], ("class 'c1' holds only equal images",)),
        (
            [BLANK, EQUAL, BLANK, BLANK, BLANK],
            (
                "4 classes hold only blank images (one value each): 'c0', 'c2', 'c3', ...",
                "class 'c1' holds only equal images",
            ),
        ),
    ],
    ids=["black", "two greys", "faint", "equal", "several"],
)
def test_classes_that_teach_nothing(groups: list[np.ndarray], sentences: tuple[str, ...]) -> None:
    names = [f"c{i}" for i in range(len(groups))]
    assert uniform_classes(np.concatenate(groups), [2] * len(groups), names) == sentences


@pytest.mark.parametrize("dtype", ["bool", "float32", "int64"])
def test_examples_of_any_type_and_shape(dtype: str) -> None:
    numbers = np.array([[0, 1], [1, 0], [1, 1], [1, 1]], dtype)
    assert uniform_classes(numbers, [2, 2], ["a", "b"]) == ("class 'b' holds only blank images (one value throughout)",)
    assert uniform_classes(numbers[:, 0], [2, 2], ["a", "b"]) == ("class 'b' holds only equal images",)


def test_colour_is_blank_where_every_channel_is() -> None:
    red = np.zeros((2, 3, 4, 4), np.uint8)
    red[:, 0] = 255
    assert uniform_classes(red, [2], ["red"]) == ("class 'red' holds only blank images (one value throughout)",)
