import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaray.data.class_store import ClassStore
from metaray.data.groups import ClassGroups
from metaray.data.images import import_images
from metaray.data.importing import ImportReport
from metaray.data.preprocessing import RESAMPLING
from metaray.data.store_file import StoreFile, StoreMeta, read_store
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from tests.data.conftest import MakePng, MakeZip

CLASSES = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "animals"
    for c, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i, suffix in enumerate(["png", "jpg", "gif"]):
            Image.new("RGB", (20, 10), (40 * c, 0, 10 * i)).save(root / name / f"{i}.{suffix}")
        (root / name / ".DS_Store").write_bytes(b"x")
    (root / "README.txt").write_text("beside the classes")
    return root


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    root = tmp_path / "splits"
    root.mkdir()
    for file, names in (("train", "ant\nbee\n"), ("val", "cat\n"), ("test", "dog\r\n\nelk")):
        (root / f"{file}.txt").write_text(names)
    return root


def test_import_with_split_files(folder: Path, split_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.arrow"
    report = import_images(folder, out, size=(5, 10), splits=split_folder)
    assert report[:4] == (out, 5, 15, ("default",))
    store = read_store(out, verify=True)
    assert store.meta.class_names == tuple(CLASSES) and store.examples.shape == (15, 3, 5, 10)
    assert store.meta.schemes["default"] == {"meta-train": (0, 1), "meta-val": (2,), "meta-test": (3, 4)}
    assert np.abs(store.examples[::3, 0].mean(axis=(1, 2)) - 40 * np.arange(5)).max() < 2


def test_import_is_deterministic_and_zip_is_the_same(folder: Path, make_zip: MakeZip, tmp_path: Path) -> None:
    members = {p.relative_to(folder.parent).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    inner = {name.removeprefix("animals/"): content for name, content in members.items()}
    fingerprints = set()
    for i, source in enumerate([folder, folder, make_zip("outer.zip", members), make_zip("inner.zip", inner)]):
        import_images(source, tmp_path / f"{i}.arrow", size=8, mode="L", invert=True, splits=(0.6, 0.2, 0.2), seed=3)
        fingerprints.add(read_store(tmp_path / f"{i}.arrow").meta.fingerprint)
    assert len(fingerprints) == 1
    ClassStore(path=str(tmp_path / "0.arrow")).check("meta-train", EpisodeSpec(ways=3, shots=1, queries=2))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two noisy pictures a class, which every filter makes other pixels of."""
    root, generator = tmp_path / "photos", np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(generator.integers(0, 256, (23, 31, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_pillow_with_the_same_filter(
    photos: Path, tmp_path: Path, mode: Literal["RGB", "L"]
) -> None:
    files = sorted(photos.rglob("*.png"))
    seen = set()
    for name, by in RESAMPLING.items():
        out = tmp_path / f"{name}.arrow"
        import_images(photos, out, size=(7, 9), mode=mode, resample=name, splits=(0.6, 0.2, 0.2))
        resized = [np.asarray(Image.open(file).convert(mode).resize((9, 7), by)) for file in files]
        expected = np.stack(resized)[:, None] if mode == "L" else np.stack(resized).transpose(0, 3, 1, 2)
        store = read_store(out, verify=True)
        assert np.array_equal(store.examples, expected)
        assert store.meta.preprocessing.resample == name
        # What a learner of this store makes of the files themselves.
        assert np.array_equal(ClassStore(path=str(out)).preprocessing.read(files), expected)
        seen.add(store.meta.fingerprint)
    assert len(seen) == len(RESAMPLING) == 6


def test_the_filter_of_before_there_was_a_choice(photos: Path, tmp_path: Path) -> None:
    import_images(photos, tmp_path / "plain.arrow", size=8, splits=(0.6, 0.2, 0.2))
    import_images(photos, tmp_path / "named.arrow", size=8, splits=(0.6, 0.2, 0.2), resample="lanczos")
    assert (tmp_path / "plain.arrow").read_bytes() == (tmp_path / "named.arrow").read_bytes()


def test_a_filter_that_pillow_has_not(photos: Path, tmp_path: Path) -> None:
    wrong: Any = "bicubik"
    with pytest.raises(InputError) as caught:
        import_images(photos, tmp_path / "out.arrow", size=8, resample=wrong)
    assert str(caught.value) == (
        "unknown filter to resize with 'bicubik'. Did you mean 'bicubic'? "
        "Known: bicubic, bilinear, box, hamming, lanczos, nearest."
    )
    assert not (tmp_path / "out.arrow").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.txt", "ant\nbeee", r"train\.txt: unknown class 'beee'. Did you mean 'bee'"),
        ("train.txt", "ant", "none of train.txt, val.txt, test.txt names the class 'bee'"),
        ("val.txt", "cat\nbee", "meta-train and meta-val overlap in 1 classes: 'bee'"),
        ("val.txt", None, r"val\.txt: can't read the split: No such file"),
    ],
)
def test_wrong_split_files(
    folder: Path, split_folder: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    if content is None:
        (split_folder / file).unlink()
    else:
        (split_folder / file).write_text(content)
    with pytest.raises(InputError, match=message):
        import_images(folder, tmp_path / "out.arrow", size=8, splits=split_folder)
    assert not (tmp_path / "out.arrow").exists()


@pytest.mark.parametrize("name", ["notes.txt", "cut.png"])
def test_bad_file_in_a_class_folder_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    raw = (folder / "bee" / "0.png").read_bytes()
    (folder / "bee" / name).write_bytes(b"text" if name == "notes.txt" else raw[: len(raw) // 2])
    with pytest.raises(InputError, match=f"bee/{name}: "):
        import_images(folder, tmp_path / "out.arrow", size=8)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []


SCANS = np.linspace(0, 4095, 25 * 5).astype(np.uint16).reshape(5, 5, 5)


def scans(root: Path, pixels: np.ndarray, suffix: str = "png") -> Path:
    """A folder of one image a class, and a second that is its mirror image."""
    for name, image in zip(CLASSES, pixels, strict=True):
        (root / name).mkdir(parents=True)
        Image.fromarray(image).save(root / name / f"0.{suffix}")
        Image.fromarray(np.ascontiguousarray(image[:, ::-1])).save(root / name / f"1.{suffix}")
    return root


def imported(folder: Path, out: Path, **options: Any) -> tuple[ImportReport, StoreFile]:
    report = import_images(folder, out, size=5, mode="L", splits=(0.6, 0.2, 0.2), **options)
    return report, read_store(out, verify=True)


def test_scans_of_12_bits_are_refused_until_their_range_is_said(tmp_path: Path) -> None:
    folder, out = scans(tmp_path / "scans", SCANS), tmp_path / "out.arrow"
    with pytest.raises(InputError, match=r"scans.*: 16 bits a channel, .*\(10 in all\), is above 4095.*--range 0,4095"):
        imported(folder, out)
    assert not out.exists()
    report, store = imported(folder, out, value_range=(0, 4095))
    assert store.meta.preprocessing.value_range == (0, 4095)
    assert np.array_equal(store.examples[::2, 0], np.rint(SCANS * (255 / 4095)).astype(np.uint8))
    (note,) = report.notes
    assert note.startswith("10 images of more than 8 bits a channel are scaled by the range 0 to 4095")


def test_floats_and_wide_integers_need_a_range(tmp_path: Path) -> None:
    given: dict[str, NDArray[Any]] = {"floats": SCANS / np.float32(4095), "integers": SCANS.astype(np.int32)}
    for kind, pixels in given.items():
        folder = scans(tmp_path / kind, pixels.astype(np.int32 if kind == "integers" else np.float32), "tif")
        with pytest.raises(InputError, match=rf"{kind}/ant/0.tif: .* has no range of its own"):
            imported(folder, tmp_path / "out.arrow")
        _, store = imported(folder, tmp_path / "out.arrow", value_range=(0, 1 if kind == "floats" else 4095))
        assert np.array_equal(store.examples[::2, 0], np.rint(SCANS * (255 / 4095)).astype(np.uint8))


def test_16_bits_keep_their_range_for_new_images_that_are_dark(tmp_path: Path) -> None:
    bright = np.where(np.arange(5)[:, None, None] == 4, SCANS * 16, SCANS)
    report, store = imported(scans(tmp_path / "scans", bright), tmp_path / "out.arrow")
    assert report.notes[1] == (
        "4 classes hold only faint images (of 255 levels they span 16 at most): 'ant', 'bee', 'cat', ..."
    )
    assert store.meta.preprocessing.value_range == (0, 65535)
    assert store.examples[-1].max() == 255 and store.examples[0].max() == 3
    dark = store.meta.preprocessing.image(Image.fromarray(SCANS[0]))
    assert np.array_equal(dark, store.examples[0])


def test_a_range_for_images_of_8_bits_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the range 0,4095 is for images of more than 8 bits a channel"):
        imported(folder, tmp_path / "out.arrow", value_range=(0, 4095))
    with pytest.raises(InputError, match="value_range goes from 9 to 2"):
        imported(folder, tmp_path / "out.arrow", value_range=(9, 2))
    assert not (tmp_path / "out.arrow").exists()


def test_blank_and_equal_classes_are_reported(folder: Path, tmp_path: Path) -> None:
    report, _ = imported(folder, tmp_path / "out.arrow")
    assert report.notes[-1:] == ("5 classes hold only blank images (one value each): 'ant', 'bee', 'cat', ...",)


@pytest.mark.parametrize("mode", ["I", "LAB"])
def test_conversion_errors_name_the_file(folder: Path, tmp_path: Path, mode: str) -> None:
    Image.new(mode, (9, 9)).save(folder / "bee" / "odd.tif")
    if mode == "LAB":  # which is converted, so that it takes damage to fail
        imported(folder, tmp_path / "out.arrow")
        raw = (folder / "bee" / "odd.tif").read_bytes()
        (folder / "bee" / "odd.tif").write_bytes(raw[:-40])
    with pytest.raises(InputError, match=r"bee/odd\.tif: "):
        imported(folder, tmp_path / "out.arrow")


def test_folder_without_classes_and_wrong_size(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no class in it"):
        import_images(tmp_path / "empty", tmp_path / "out.arrow", size=8)
    with pytest.raises(InputError, match="image size of 0x0"):
        import_images(folder, tmp_path / "out.arrow", size=0)


def place(root: Path, png: MakePng, *names: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(i))
    return root


def meta_of(path: Path) -> StoreMeta:
    return read_store(path, verify=True).meta


GIVEN = [*(f"train/{c}/1.png" for c in "abcdef"), "val/g/1.png", "val/h/1.png", "test/i/1.png"]


def test_given_splits_and_superclasses_reach_the_store(png: MakePng, tmp_path: Path) -> None:
    lines: list[str] = []
    root, out = place(tmp_path / "data", png, *GIVEN), tmp_path / "out.arrow"
    import_images(root, out, size=8, tell=lines.append)
    assert meta_of(out).class_names == tuple("abcdefghi")
    assert meta_of(out).schemes["default"] == {
        "meta-train": (0, 1, 2, 3, 4, 5),
        "meta-val": (6, 7),
        "meta-test": (8,),
    }
    assert lines == [
        "found 9 classes, 1 images a class: a, b, c, d, e, ...",
        "splits: 6 / 2 / 1 classes for meta-train, meta-val, meta-test: the folders train, val, test",
    ]
    assert meta_of(out).origin["splits"] == "the folders train, val, test"
    assert meta_of(out).groups is None
    deep = place(tmp_path / "deep", png, *(f"{s}/{c}/1.png" for s in ("x", "y") for c in "abcde"))
    lines.clear()
    import_images(deep, out, size=8, depth=2, tell=lines.append)
    assert meta_of(out).class_names[4:6] == ("x/e", "y/a")
    assert meta_of(out).groups == ClassGroups.of(["x"] * 5 + ["y"] * 5)
    assert lines[0] == "found 10 classes in 2 groups, 1 images a class: x/a, x/b, x/c, x/d, x/e, ..."


def test_the_same_classes_in_each_split_are_refused_or_joined(png: MakePng, tmp_path: Path) -> None:
    names = [f"{split}/{c}/1.png" for split in ("train", "val", "test") for c in "abcdefghij"]
    root, out = place(tmp_path / "data", png, *names), tmp_path / "out.arrow"
    with pytest.raises(
        InputError, match=r"data: the folders train, val, test hold the same classes \(10 of 10: a, b, c"
    ):
        import_images(root, out, size=8)
    assert not out.exists()
    import_images(root, out, size=8, splits=(0.6, 0.2, 0.2))
    assert meta_of(out).origin["splits"].endswith("seed 0 (--splits; not the folders train, val, test)")
    assert meta_of(out).class_names == tuple("abcdefghij") and set(meta_of(out).counts) == {3}


def test_labels_of_a_flat_folder(png: MakePng, tmp_path: Path) -> None:
    root, out = place(tmp_path / "data", png, *(f"{i}.png" for i in range(20))), tmp_path / "out.arrow"
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{i}.png,{'abcdefghij'[i // 2]}\n" for i in range(20)))
    with pytest.raises(InputError, match="20 images directly in it"):
        import_images(root, out, size=8)
    import_images(root, out, size=8, mode="L", labels=[table])
    assert meta_of(out).class_names == tuple("abcdefghij")
    assert read_store(out).examples[:, 0, 0, 0].tolist() == list(range(20))
    with pytest.raises(InputError, match="--depth and --nested do not go with it"):
        import_images(root, out, size=8, labels=[table], depth=2)
    with pytest.raises(InputError, match="--columns 'a,b': names columns of --labels"):
        import_images(root, out, size=8, columns=["a", "b"])


def test_folder_zip_and_tar_give_one_fingerprint(png: MakePng, tmp_path: Path) -> None:
    root, out = place(tmp_path / "data", png, *GIVEN), tmp_path / "out.arrow"
    fingerprints = set()
    for kind in (None, "zip", "tar", "gztar", "bztar", "xztar"):
        source = root if kind is None else shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "data")
        import_images(Path(source), out, size=8)
        fingerprints.add(meta_of(out).fingerprint)
    assert len(fingerprints) == 1
