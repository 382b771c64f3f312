"""Which classes a tree of files holds."""

from pathlib import Path

import pytest

from metaray.data.file_tree import FileTree
from metaray.data.layout import Found, Nested, find_classes
from metaray.errors import InputError


def tree(*names: str) -> FileTree:
    return FileTree(Path("here"), [(name, bytes) for name in names])


def found(*names: str, depth: int = 1, nested: Nested = "refuse") -> Found:
    return find_classes(tree(*names), lambda name: False, depth=depth, nested=nested)


def test_a_folder_per_class() -> None:
    one = found("dog/2.png", "cat/1.jpg", "dog/1.png", "README.txt", "cat/.DS_Store", ".git/x")
    assert one.classes == {"cat": ["cat/1.jpg"], "dog": ["dog/1.png", "dog/2.png"]}
    assert one.given == {}
    assert one.notes == (
        "passed over: 1 file beside the class folders (README.txt)",
        "passed over: 2 hidden or system files (.git, cat/.DS_Store)",
    )
    assert one.summary == "2 classes, 1 / 1.5 / 2 images a class (fewest / median / most): cat, dog"


@pytest.mark.parametrize("wrapper", ["", "animals/", "a/b/c/"])
def test_a_folder_that_wraps_everything_is_no_class(wrapper: str) -> None:
    one = found(f"{wrapper}cat/1.png", f"{wrapper}dog/1.png", f"{wrapper}LICENSE")
    assert sorted(one.classes) == ["cat", "dog"]


def test_one_class_is_not_taken_for_a_wrapper() -> None:
    assert found("cat/1.png", "cat/2.png").classes == {"cat": ["cat/1.png", "cat/2.png"]}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "validation", "Testing"),
        ("meta-train", "meta_val", "META-TEST"),
        ("base", "valid", "novel"),
        ("background", "dev", "evaluation"),
    ],
)
def test_folders_of_a_given_split_are_no_classes(train: str, val: str, test: str) -> None:
    one = found(f"x/{train}/cat/1.png", f"x/{train}/dog/1.png", f"x/{val}/elk/1.png", f"x/{test}/fox/1.png")
    assert sorted(one.classes) == ["cat", "dog", "elk", "fox"]
    assert one.given == {"meta-train": ["cat", "dog"], "meta-val": ["elk"], "meta-test": ["fox"]}
    assert one.by == f"the folders {train}, {val}, {test}"


def test_the_same_classes_in_each_folder_are_not_three_classes() -> None:
    one = found("train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png")
    assert one.classes == {"cat": ["test/cat/2.png", "train/cat/1.png"], "dog": ["test/dog/2.png", "train/dog/1.png"]}
    assert one.given == {"meta-train": ["cat", "dog"], "meta-test": ["cat", "dog"]}


def test_a_class_may_be_called_train() -> None:
    assert sorted(found("train/1.png", "bus/1.png", "novel/1.png").classes) == ["bus", "novel", "train"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/1.png", "test/1.png", "val/1.png"), "are named like splits, but hold images (test/1.png)"),
        (("train/a/1.png", "test/1.png"), "are named like splits, but hold images (test/1.png)"),
        (("train/a/1.png", "test/b/1.png", "extra/c/1.png"), "named like splits, but 'extra' beside them are not"),
        (("train/1.png", "test/1.png", "cat/1.png"), "named like splits, but 'cat' beside them are not"),
        (("train/a/1.png", "training/b/1.png"), "the folders 'train', 'training' are two for one split"),
    ],
)
def test_splits_that_are_not_clear_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as refused:
        found(*names)
    assert message in str(refused.value)


def test_superclasses_are_asked_about() -> None:
    names = ("animals/cat/1.png", "animals/dog/1.png", "plants/oak/1.png", "plants/README", "x.txt")
    with pytest.raises(InputError) as refused:
        found(*names)
    assert "'animals/cat' (1), 'animals/dog' (1), 'plants/oak' (1); --depth 2 takes these folders" in str(refused.value)
    one = found(*names, depth=2)
    assert sorted(one.classes) == ["animals/cat", "animals/dog", "plants/oak"]
    assert "2 files beside the class folders (plants/README, x.txt)" in one.notes[0]
    assert sorted(found(*names[:3], nested="join").classes) == ["animals", "plants"]
    one = found("train/a/cat/1.png", "train/b/cat/1.png", "test/c/cat/1.png", depth=2)
    assert one.given == {"meta-train": ["a/cat", "b/cat"], "meta-test": ["c/cat"]}


def test_folders_inside_a_class_are_asked_about() -> None:
    names = ("cat/1.png", "cat/thumbs/1.png", "dog/1.png", "dog/masks/1.png", "dog/masks/2.png", "cat/@eaDir/1.png")
    with pytest.raises(InputError) as refused:
        found(*names)
    assert str(refused.value).startswith(
        "here: 3 files lie in folders inside class folders, beside 2 that lie directly in them: 'cat/thumbs' (1), "
        "'dog/masks' (2); --nested join"
    )
    assert found(*names, nested="join").classes["dog"] == ["dog/1.png", "dog/masks/1.png", "dog/masks/2.png"]
    one = found(*names, nested="skip")
    assert one.classes == {"cat": ["cat/1.png"], "dog": ["dog/1.png"]}
    assert "passed over: 3 files in folders inside class folders, as --nested skip says" in one.notes


@pytest.mark.parametrize(
    ("names", "depth", "nested", "message"),
    [
        (("cat/1.png", "dog/1.png", "stray.png"), 1, "refuse", "1 image beside the class folders, for instance 'stray"),
        (("cat/1.png", "a/dog/1.png"), 2, "refuse", "1 image beside the class folders, for instance 'cat/1.png'"),
        (("cat/1.png", "dogs/pug/1.png"), 1, "refuse", "1 files lie in folders inside class folders, beside 1"),
        (("cat/1.png", "dogs/pug/1.png"), 1, "skip", "with --nested skip no image of the class 'dogs' is left"),
        (
            ("1.png", "2.png", "y.csv"),
            1,
            "refuse",
            "2 images directly in it, for instance '1.png', and no class folders",
        ),
        (("1.png", "2.png", "y.csv"), 1, "refuse", "--labels FILE (such as y.csv, which lies there)"),
        (("cat/1.png", "dog/1.png"), 2, "refuse", "2 images in it, but none 2 folders deep or deeper (--depth 2)"),
        (
            ("train/a/1.png", "test/b/1.png"),
            2,
            "refuse",
            "2 images in it, but none 2 folders deep or deeper (--depth 2)",
        ),
        (("a/train/1.png", "a/test/2.png", "b/train/1.png"), 1, "refuse", "holds folders named like splits"),
        (("a/train/1.png", "a/test/2.png", "b/train/1.png"), 2, "refuse", "--depth 1 --nested join counts them"),
        (("cat/1.png",), 0, "refuse", "--depth 0: must be at least 1"),
    ],
)
def test_images_at_other_levels_are_refused(names: tuple[str, ...], depth: int, nested: Nested, message: str) -> None:
    with pytest.raises(InputError) as refused:
        found(*names, depth=depth, nested=nested)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "here: no class in it, not a single file; expected a folder per class"),
        (
            ("a/1.txt", "a/2.txt", "b/x"),
            "here: no images in it; the files found are 2 with .txt, 1 with no suffix, for",
        ),
        (("n01.tar", "n02.tar"), "the files found are 2 with .tar, for instance 'n01.tar'. Unpack the archives in it"),
    ],
)
def test_no_images(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as refused:
        found(*names)
    assert str(refused.value).startswith(message) or message in str(refused.value)


def test_images_whose_names_do_not_tell() -> None:
    one = find_classes(tree("a/img1", "a/img2", "b/img3"), lambda name: name == "a/img1")
    assert one.classes == {"a": ["a/img1", "a/img2"], "b": ["b/img3"]}


def test_names_that_look_alike_are_said() -> None:
    (note,) = found("Cat/1.png", "cat/1.png").notes
    assert note == "'Cat' and 'cat' are two classes, though their names differ in case or spaces alone"


def test_folders_around_the_classes_are_their_groups() -> None:
    one = found("x/cat/1.png", "x/dog/1.png", "y/elk/1.png", depth=2)
    assert one.groups == {"x/cat": "x", "x/dog": "x", "y/elk": "y"}
    assert one.summary.startswith("3 classes in 2 groups, 1 images a class: ")
    given = found("train/x/cat/1.png", "train/y/dog/1.png", "test/x/elk/1.png", depth=2)
    assert given.groups == {"x/cat": "x", "y/dog": "y", "x/elk": "x"}
    assert found("cat/1.png", "dog/1.png").groups is None
    deep = found("a/x/cat/1.png", "b/y/elk/1.png", depth=3)
    assert deep.groups == {"a/x/cat": "a/x", "b/y/elk": "b/y"}
