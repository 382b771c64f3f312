import pytest

from metaray.data.groups import ClassGroups, across_splits, folder_of, sizes_of
from metaray.errors import InputError

NAMES = ["Greek", "Latin", "Greek", "Lao"]


def test_names_and_numbers() -> None:
    groups = ClassGroups.of(NAMES)
    assert groups.numbers.tolist() == [0, 2, 0, 1]
    assert ClassGroups.parse(groups.model_dump(mode="json"), where="groups") == groups
    assert ClassGroups.of(NAMES[::-1]).fingerprint != groups.fingerprint


def test_damage_is_seen() -> None:
    tree = ClassGroups.of(NAMES).model_dump(mode="json") | {"names": ["Greek", "Latin", "Greek", "Lap"]}
    with pytest.raises(InputError, match="damaged: the groups of its classes don't match their fingerprint"):
        ClassGroups.parse(tree, where="store")


def test_folder_of() -> None:
    assert folder_of("Greek/character01") == "Greek" and folder_of("a/b/c") == "a/b" and folder_of("cat") == ""


def test_sizes_and_splits() -> None:
    assert sizes_of(NAMES, range(4)) == {"Greek": 2, "Lao": 1, "Latin": 1}
    assert sizes_of(NAMES, [3]) == {"Lao": 1}
    assert across_splits(NAMES, {"meta-train": [0, 1], "meta-val": [3], "meta-test": [2]}) == ["Greek"]
    assert across_splits(NAMES, {"meta-train": [0, 2], "meta-val": [3]}) == []
