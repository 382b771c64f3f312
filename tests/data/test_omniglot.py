import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import omniglot
from metaray.config import replace
from metaray.data.class_store import ClassStore
from metaray.data.draws import SPLITS, Draws, Split
from metaray.data.omniglot import SCHEMES, import_omniglot, published_split
from metaray.data.store_file import read_store
from metaray.errors import InputError
from tests.data.conftest import MakePng, MakeZip

SIZES = {"vinyals": (1028, 172, 423), "maml": (1100, 100, 423), "lake": (802, 162, 659)}


@pytest.fixture
def lake() -> dict[Split, list[str]]:
    return published_split("lake")


@pytest.fixture
def fake(tmp_path: Path, png: MakePng, lake: dict[Split, list[str]]) -> Path:
    """All of Omniglot's classes with one tiny drawing each, in the two official folders."""
    root = tmp_path / "omniglot"
    content = png(0)
    for split, names in lake.items():
        part = "images_evaluation" if split == "meta-test" else "images_background"
        for name in names:
            (root / part / name).mkdir(parents=True)
            (root / part / name / "0001_01.png").write_bytes(content)
    return root


def test_published_splits_are_disjoint_and_complete() -> None:
    everything = []
    for scheme in SCHEMES:
        splits = published_split(scheme)
        assert tuple(map(len, splits.values())) == SIZES[scheme]
        names = [name for members in splits.values() for name in members]
        assert len(set(names)) == 1623
        everything.append(sorted(names))
    assert everything[0] == everything[1] == everything[2]


def test_lake_validates_on_five_drawn_background_alphabets(lake: dict[Split, list[str]]) -> None:
    train, val, test = ({name.split("/")[0] for name in members} for members in lake.values())
    assert (len(train), len(val), len(test)) == (25, 5, 20) and not train & val and not (train | val) & test
    assert val == set(random.Random(1).sample(sorted(train | val), 5))


def test_maml_is_a_seeded_shuffle() -> None:
    splits = published_split("maml")
    names = sorted(name for members in splits.values() for name in members)
    random.Random(1).shuffle(names)
    assert names[:1100] == splits["meta-train"] and names[1100:1200] == splits["meta-val"]


def test_import_of_extracted_folders(fake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.arrow"
    report = import_omniglot(fake, out)
    assert report[:4] == (out, 1623, 1623, SCHEMES)
    (note,) = report.notes
    assert note.startswith("1623 classes hold only blank images (one value each): 'Alphabet_of_the_Magi/character01'")
    store = read_store(out, verify=True)
    # A drawing of ink only: stored ink high.
    assert store.meta.groups is not None and len(set(store.meta.groups.names)) == 50
    assert store.meta.groups.names == tuple(name.partition("/")[0] for name in store.meta.class_names)
    assert store.examples.shape == (1623, 1, 28, 28) and (store.examples == 255).all()
    parts = [fake / "images_background", fake / "images_evaluation"]
    import_omniglot(parts, tmp_path / "again.arrow")
    assert read_store(tmp_path / "again.arrow").meta.fingerprint == store.meta.fingerprint


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Some of Omniglot's classes, one drawing of black strokes on white each, of one bit a pixel as the real ones."""
    root, generator = tmp_path / "drawn" / "images_background", np.random.default_rng(0)
    for i in range(1, 11):
        folder = root / "N_Ko" / f"character{i:02d}"
        folder.mkdir(parents=True)
        strokes = generator.integers(0, 2, (21, 21), dtype=np.uint8).repeat(5, 0).repeat(5, 1) * 255
        Image.fromarray(strokes).convert("1", dither=Image.Dither.NONE).save(folder / "0394_01.png")
    return root


def test_the_options_of_other_images(drawn: Path, tmp_path: Path) -> None:
    """As OpenAI's Reptile prepares Omniglot: Pillow's nearest neighbour on one bit a pixel, paper high."""
    out = tmp_path / "reptile.arrow"
    report = import_omniglot(drawn, out, invert=False, resample="nearest", splits=(0.6, 0.2, 0.2), seed=1)
    assert report.schemes == ("default",) and len([note for note in report.notes if "left out" in note]) == 3
    store = read_store(out, verify=True)
    files = sorted(drawn.rglob("*.png"))
    assert np.array_equal(store.examples[:, 0], [255 * np.array(Image.open(file).resize((28, 28))) for file in files])
    assert {part: len(ids) for part, ids in store.meta.schemes["default"].items()} == {
        "meta-train": 6,
        "meta-val": 2,
        "meta-test": 2,
    }
    assert store.meta.origin["splits"] == "fractions 0.6 0.2 0.2, seed 1"
    import_omniglot(drawn, tmp_path / "colour.arrow", size=(10, 12), mode="RGB", splits=(0.6, 0.2, 0.2))
    colour = read_store(tmp_path / "colour.arrow")
    assert colour.examples.shape == (10, 3, 10, 12) and colour.meta.preprocessing.invert


def test_splits_of_ones_own_stand_beside_the_published(fake: Path, tmp_path: Path) -> None:
    report = import_omniglot(fake, tmp_path / "out.arrow", size=2, splits=(0.5, 0.25, 0.25))
    assert report.schemes == (*SCHEMES, "default")


def test_partial_data(fake: Path, tmp_path: Path) -> None:
    (fake / "images_background" / "N_Ko" / "character01" / "0001_01.png").unlink()
    with pytest.raises(
        InputError, match="split 'lake' left out: 1 of its 1623 classes are missing, .*N_Ko/character01"
    ):
        import_omniglot(fake, tmp_path / "out.arrow")
    assert not (tmp_path / "out.arrow").exists()


def test_wrong_sources(fake: Path, tmp_path: Path, make_zip: MakeZip, png: MakePng) -> None:
    out = tmp_path / "out.arrow"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds none of images_background/"):
        import_omniglot(tmp_path / "empty", out)
    with pytest.raises(InputError, match=r"none\.zip: no such"):
        import_omniglot(tmp_path / "none.zip", out)
    with pytest.raises(InputError, match="'N_Ko/character99'.*Did you mean 'N_Ko/character"):
        import_omniglot(make_zip("a.zip", {"images_background/N_Ko/character99/1.png": png(0)}), out)
    with pytest.raises(InputError, match="no character of Omniglot"):
        import_omniglot(make_zip("b.zip", {"cats/tabby/1.png": png(0)}), out)
    with pytest.raises(InputError, match="is in both"):
        import_omniglot([fake, make_zip("c.zip", {"images_background/N_Ko/character01/1.png": png(0)})], out)
    with pytest.raises(InputError, match="leads out of the archive"):
        import_omniglot(make_zip("d.zip", {"../N_Ko/character01/1.png": png(0)}), out)


def test_corrupt_drawing_is_named(fake: Path, tmp_path: Path) -> None:
    drawing = fake / "images_background" / "N_Ko" / "character01" / "0001_01.png"
    drawing.write_bytes(drawing.read_bytes()[:40])
    with pytest.raises(InputError, match="N_Ko/character01/0001_01.png: "):
        import_omniglot(fake, tmp_path / "out.arrow")


@pytest.mark.slow
def test_the_real_omniglot(omniglot_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "omniglot.arrow"
    assert import_omniglot(omniglot_folder, out) == (out, 1623, 32460, SCHEMES, ())
    store = ClassStore(path=str(out), split="vinyals", rotations=True)
    assert store.summary("meta-test") == (1692, 33840, 20, 20.0, 20)
    image = store.examples(0)[0]
    # Ink high: most of a drawing is paper.
    assert 0 < image.mean() < 80 and image.max() > 200 and np.median(image) == 0


@pytest.mark.slow
def test_recipes_of_alphabets_and_of_unequal_tasks(omniglot_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "omniglot.arrow"
    import_omniglot(omniglot_folder, out)
    for recipe in (
        omniglot.protonet_mixed_alphabets,
        omniglot.protonet_within_alphabets,
        omniglot.protonet_meta_dataset,
        omniglot.protonet_any_task,
        omniglot.proto_maml_any_task,
        omniglot.r2d2_any_task,
    ):
        experiment = recipe()
        source = replace(experiment.source, path=str(out))
        for split in SPLITS:
            spec = experiment.episodes if split == "meta-train" else experiment.eval_spec
            source.check(split, spec)
            tasks = [source.sample_task(Draws(0, split, index), split, spec) for index in range(50)]
            names = [{source.class_name(i) for i in task.class_ids.tolist()} for task in tasks]
            assert all(spec.fewest_ways <= len(classes) <= spec.most_ways for classes in names)
            alphabets = [{name.partition("/")[0] for name in classes} for classes in names]
            together = [len(found) == 1 for found in alphabets]
            assert all(together) if getattr(source, "within_groups", False) else not any(together)
            assert len(set.union(*alphabets)) >= (3 if split == "meta-val" else 9)
            assert max(len(task.support.y) for task in tasks) <= spec.most_support
