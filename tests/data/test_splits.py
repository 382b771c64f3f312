"""Meta-splits: given, listed or drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.data.draws import SPLITS, Split
from metaray.data.splits import given_splits, is_plain_split, random_splits, split_named
from metaray.errors import InputError

CLASSES = ["ant", "bee", "cat", "dog", "elk"]
LETTERS = list("abcdefghij")


def test_names_of_splits() -> None:
    assert split_named(" Meta_Train ") == "meta-train" and split_named("VALID") == "meta-val"
    assert split_named("novel") == "meta-test" and split_named("cat") is None
    assert is_plain_split("train") and not is_plain_split("novel")


def test_given_splits_are_kept() -> None:
    splits, by = given_splits({"meta-test": ["c"], "meta-val": ["b"], "meta-train": ["a"]}, 0, where="x", by="folders")
    assert (splits, by) == ({"meta-train": ["a"], "meta-val": ["b"], "meta-test": ["c"]}, "folders")


def test_a_split_that_is_missing_is_drawn_from_meta_train_and_said() -> None:
    splits, by = given_splits({"meta-train": LETTERS, "meta-test": ["z"]}, 3, where="x", by="folders")
    assert [len(splits[split]) for split in SPLITS] == [8, 2, 1]
    assert sorted(splits["meta-train"] + splits["meta-val"]) == LETTERS
    assert by == "folders; none is for meta-val, so 2 of the 10 of meta-train were drawn, seed 3"
    assert splits == given_splits({"meta-test": ["z"], "meta-train": LETTERS}, 3, where="x", by="folders")[0]
    splits, by = given_splits({"meta-train": LETTERS, "meta-val": ["z"]}, 0, where="x", by="folders")
    assert [len(splits[split]) for split in SPLITS] == [8, 1, 2]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"meta-train": ["a", "b"], "meta-test": ["b", "c"]},
            r"x: folders hold the same classes \(1 of 3: b\), .*; --splits 0.64,0.16,0.2 puts the examples of each",
        ),
        ({"meta-val": ["a"], "meta-test": ["c"]}, "x: folders leave no class to meta-train on; --splits"),
        ({"meta-train": ["a", "b"], "meta-test": ["c"]}, r"no class for meta-val, and meta-train has too few .*\(2\)"),
    ],
)
def test_given_splits_that_no_one_can_train_on(splits: dict[Split, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_splits(splits, 0, where="x", by="folders")


def test_wrong_fractions() -> None:
    with pytest.raises(InputError, match="sum to 1"):
        random_splits(CLASSES, (0.5, 0.2, 0.2), 0)
    with pytest.raises(InputError, match="a fraction of 0.1 of 5 classes leaves meta-val without a class"):
        random_splits(CLASSES, (0.8, 0.1, 0.1), 0)


@given(st.integers(10, 200), st.integers(0, 99))
def test_random_splits_deal_each_class_once(count: int, seed: int) -> None:
    names = [f"c{i}" for i in range(count)]
    splits = random_splits(names, (0.64, 0.16, 0.2), seed)
    assert list(splits) == list(SPLITS)
    assert sorted(name for members in splits.values() for name in members) == sorted(names)
    assert splits == random_splits(names[::-1], (0.64, 0.16, 0.2), seed)
