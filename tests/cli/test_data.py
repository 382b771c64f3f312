import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaray.data import ClassStore
from metaray.data.preprocessing import RESAMPLING, ImagePreprocessing
from metaray.data.store_file import read_store

Command = Callable[..., Any]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in range(10):
        (tmp_path / "images" / f"class {name}").mkdir(parents=True)
        for shot in range(2):
            path = tmp_path / "images" / f"class {name}" / f"{shot}.png"
            drawing = Image.new("L", (12, 10), 20 * name + shot)
            drawing.paste(255, (0, 0, 2 + shot, 9))
            drawing.save(path)
    return tmp_path / "images"


def test_import_images(command: Command, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "store.arrow"
    options = ("--size", "8x6", "--mode", "L", "--invert", "--splits", "0.5,0.2,0.3", "--seed", "3")
    code, printed, err = command("data", "import", "images", images, "--out", out, *options)
    assert (code, err.splitlines()) == (
        0,
        [
            "found 10 classes, 2 images a class: class 0, class 1, class 2, class 3, class 4, ...",
            "splits: 5 / 2 / 3 classes for meta-train, meta-val, meta-test: fractions 0.5 0.2 0.3, seed 3",
        ],
    )
    wrote, normalise = printed.splitlines()
    assert wrote == f"wrote {out}: 10 classes, 20 examples, splits default"
    assert re.fullmatch(r"to normalise by default's meta-train: --set source.mean=\[0.\d{4}\] --set .*", normalise)
    meta = read_store(out, verify=True).meta
    assert meta.feature_shape == (1, 8, 6)
    assert {part: len(ids) for part, ids in meta.schemes["default"].items()} == {
        "meta-train": 5,
        "meta-val": 2,
        "meta-test": 3,
    }
    assert ClassStore(path=str(out)).examples(0)[0].max() == 255


def test_a_filter_of_ones_own(command: Command, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "store.arrow"
    arguments = ("data", "import", "images", images, "--out", out, "--size", "7", "--resample")
    code, printed, err = command(*arguments, "nearist")
    assert (code, printed) == (2, "")
    assert err.splitlines() == [
        "error: unknown filter to resize with 'nearist'. Did you mean 'nearest'? "
        "Known: bicubic, bilinear, box, hamming, lanczos, nearest."
    ]
    assert command(*arguments, "box").code == 0
    _, printed, _ = command("data", "describe", out)
    assert "images resized with: box" in printed.splitlines()
    _, printed, _ = command("data", "describe", out, "--json")
    assert json.loads(printed)["resample"] == "box"


def test_omniglot_takes_the_same_options(command: Command, images: Path, tmp_path: Path) -> None:
    alphabet, out = tmp_path / "images_background" / "N_Ko", tmp_path / "o.arrow"
    for i, folder in enumerate(sorted(images.iterdir()), 1):
        (alphabet / f"character{i:02d}").mkdir(parents=True)
        for file in folder.iterdir():
            file.rename(alphabet / f"character{i:02d}" / file.name)
    options = ("--size", "6x5", "--mode", "RGB", "--no-invert", "--resample", "nearest", "--splits", "0.6,0.2,0.2")
    code, printed, err = command("data", "import", "omniglot", tmp_path, "--out", out, *options, "--seed", "2")
    assert code == 0, err
    assert printed.splitlines()[0] == f"wrote {out}: 10 classes, 20 examples, splits default"
    meta = read_store(out, verify=True).meta
    assert meta.preprocessing == ImagePreprocessing(height=6, width=5, mode="RGB", resample="nearest")
    assert meta.origin["splits"] == "fractions 0.6 0.2 0.2, seed 2"


@pytest.mark.parametrize("what", ["images", "omniglot"])
def test_help_lists_every_filter(command: Command, what: str) -> None:
    _, printed, _ = command("data", "import", what, "--help")
    listed = re.search(r"resizes\s+images:(.*?)\.", printed, re.DOTALL)
    assert listed and re.findall(r"\w+", listed[1].replace(" or ", ", ")) == list(RESAMPLING)


def test_scans_are_imported_by_their_range_and_described(command: Command, tmp_path: Path) -> None:
    steps = np.linspace(0, 4095, 100).astype(np.uint16).reshape(10, 10)
    for name in range(10):
        (tmp_path / "scans" / str(name)).mkdir(parents=True)
        for shot in range(2):
            scan = Image.fromarray(np.roll(steps, 7 * name + shot * (name > 0)))
            scan.save(tmp_path / "scans" / str(name) / f"{shot}.png")
    arguments = ("data", "import", "images", tmp_path / "scans", "--out", tmp_path / "s.arrow", "--size", "10")
    code, out, err = command(*arguments, "--mode", "L")
    assert (code, out) == (2, "") and "16 bits a channel, but nothing" in err and "--range 0,4095" in err
    for wrong in ("4095", "9,2", "0,x", "nan,1", "1,2,3"):
        code, out, err = command(*arguments, "--range", wrong)
        assert (code, out) == (2, "") and f"--range {wrong!r}: write LOW,HIGH" in err
    code, out, err = command(*arguments, "--mode", "L", "--range", "0,4095")
    equal = "note: class '0' holds only equal images"
    assert code == 0 and err.startswith("found 10 classes, 2 images a class: ")
    assert out.splitlines()[1:-1] == [
        "note: 20 images of more than 8 bits a channel are scaled by the range 0 to 4095, which the store keeps for "
        "new images",
        equal,
    ]
    _, out, _ = command("data", "describe", tmp_path / "s.arrow")
    assert out.splitlines()[2:4] == ["value range: 0 to 4095", "images resized with: lanczos"]
    assert out.splitlines()[-2] == equal
    _, out, _ = command("data", "describe", tmp_path / "s.arrow", "--json")
    assert json.loads(out)["notes"] == [equal.removeprefix("note: ")] and json.loads(out)["value_range"] == [0, 4095]


def test_describe(command: Command, tiny_store: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "gallery.png"
    code, out, err = command("data", "describe", tiny_store, "--ways", "3", "--queries", "2", "--gallery", picture)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{tiny_store}: 28 classes, 336 examples of shape (1, 16, 16)"
    assert lines[1] == f"fingerprint: {read_store(tiny_store).meta.fingerprint}"
    assert lines[2] == "images resized with: lanczos"
    assert lines[3].split(None, 3)[:3] == ["split", "part", "classes"]
    assert lines[3].endswith("distinct 3-way 1-shot episodes")
    assert lines[4].split() == ["default", "meta-train", "12", "12", "/", "12", "/", "12", "6.325e+10"]
    assert lines[-1] == f"gallery: {picture}"
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_describe_as_json(command: Command, tiny_store: Path) -> None:
    code, out, _ = command("data", "describe", tiny_store, "--rotations", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["classes"] == 28
    assert found["shape"] == [1, 16, 16]
    assert [len(found["normalisation"]["default"][name]) for name in ("mean", "std")] == [1, 1]
    assert [row["classes"] for row in found["splits"]] == [48, 32, 32]
    assert found["spec"] == {"ways": 5, "shots": 1, "queries": 5}


def test_counts_beyond_floating_point(command: Command, tiny_store: Path) -> None:
    code, out, err = command("data", "describe", tiny_store, "--rotations", "--ways", "32", "--shots", "6")
    assert (code, err) == (0, "")
    assert "e+" in out


def test_describe_a_spec_that_is_too_large(command: Command, tiny_store: Path) -> None:
    code, out, _ = command("data", "describe", tiny_store, "--ways", "20")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()[4:-1]] == ["0", "0", "0"]


def test_export(command: Command, tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "task"
    options = ("--part", "meta-val", "--ways", "3", "--shots", "2", "--queries", "1", "--seed", "4", "--index", "7")
    code, printed, err = command("data", "export", tiny_store, "--out", out, *options)
    assert (code, err) == (0, "")
    assert printed == f"wrote {out}/support and {out}/query\n"
    classes = sorted(folder.name for folder in (out / "support").iterdir())
    assert len(classes) == 3
    assert all(12 <= int(name.removeprefix("class")) < 20 for name in classes)
    assert sorted(folder.name for folder in (out / "query").iterdir()) == classes
    assert len(list((out / "support").rglob("*.png"))) == 6
    code, _, err = command("data", "export", tiny_store, "--out", out, *options)
    assert code == 2
    assert str(out) in err


def test_describe_groups_and_ranges(command: Command, images: Path, tmp_path: Path) -> None:
    root, store = tmp_path / "grouped", tmp_path / "grouped.arrow"
    for i in range(12):
        folder = root / f"group{i % 3}" / f"class{i}"
        folder.mkdir(parents=True)
        for j in range(3):
            Image.new("L", (4, 4), 20 * i + j).save(folder / f"{j}.png")
    options = ("--depth", 2, "--size", 4, "--splits", "0.5,0.25,0.25")
    assert command("data", "import", "images", root, "--out", store, *options).code == 0
    code, out, err = command("data", "describe", store, "--ways", "2..3", "--queries", "rest")
    assert (code, err) == (0, "")
    assert "distinct episodes (2 to 3 ways, 1-shot), at least" in out or "(2 to 3 ways, 1 shot), at least" in out
    assert "groups: 3, of 4 / 4 / 4 classes (fewest / median / most)" in out
    assert "split default: groups with classes in more than one part: group0, group1, group2 (3 in all)" in out
    code, out, _ = command("data", "describe", store, "--within-groups", "--ways", "2")
    assert code == 0 and "distinct 2-way 1-shot episodes within a group" in out
    task = tmp_path / "task"
    export = ("data", "export", store, "--out", task, "--part", "meta-train", "--within-groups", "--queries", "rest")
    assert command(*export, "--ways", 2).code == 0
    assert len({folder.name.partition("_")[0] for folder in (task / "support").iterdir()}) == 1
    assert len(list((task / "query").rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ways", "1"), "ways: a task needs at least 2 classes (got 1)"),
        (("--ways", "many"), "episodes: ways: a number, or a range such as 5..20"),
        (("--shots", "3..1"), "episodes: shots: a range goes from its lower to its upper end (got 3..1)"),
        (("--within-groups",), "within_groups is asked for, but the store does not say which classes belong together"),
    ],
)
def test_describe_refuses(options: tuple[str, ...], told: str, command: Command, tiny_store: Path) -> None:
    code, out, err = command("data", "describe", tiny_store, *options)
    assert (code, out) == (2, "") and told in err
