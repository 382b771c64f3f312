from pathlib import Path

import numpy as np
import pytest

from metaray.data.archives import open_tree
from metaray.data.importing import ImageFile, import_classes
from metaray.data.pictures import decode_image
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import read_store
from metaray.errors import InputError
from tests.data.conftest import MakePng, MakeZip


def test_decode_names_what_is_wrong(png: MakePng) -> None:
    assert decode_image(png(7), "fine.png").size == (10, 8)
    with pytest.raises(InputError, match=r"notes\.txt: not an image"):
        decode_image(b"text", "notes.txt")
    with pytest.raises(InputError, match=r"cut\.png: a damaged image"):
        decode_image(png(7)[:-20], "cut.png")
    with pytest.raises(InputError, match=r"empty\.png: not an image"):
        decode_image(b"", "empty.png")


def test_images_keep_their_order_and_progress_is_reported(make_zip: MakeZip, png: MakePng, tmp_path: Path) -> None:
    names = [f"{i:03d}.png" for i in range(200)]
    path = make_zip("many.zip", {name: png(i) for i, name in enumerate(names)})
    seen = []
    with open_tree(path) as tree:
        files = [ImageFile(tree, name) for name in names]
        import_classes(
            tmp_path / "new" / "out.arrow",
            {"a": files[:150], "b": files[150:]},
            schemes={"default": {"meta-train": [0, 1]}},
            preprocessing=ImagePreprocessing(height=8, width=10),
            origin={},
            progress=lambda done, total: seen.append((done, total)),
        )
    store = read_store(tmp_path / "new" / "out.arrow", verify=True)
    assert np.array_equal(store.examples[:, 0, 0, 0], np.arange(200))
    assert store.meta.counts == (150, 50)
    assert seen[-1] == (200, 200) and seen == sorted(seen)


PIXELS = ImagePreprocessing(height=8, width=10)


def test_files_that_are_no_images_are_named_together(make_zip: MakeZip, png: MakePng, tmp_path: Path) -> None:
    names = ["a/0.png", "a/notes.txt", "b/0.png", "b/list.csv", "b/more.md"]
    path = make_zip("mixed.zip", {name: png(1) if name.endswith("png") else b"taken in May" for name in names})
    with open_tree(path) as tree, pytest.raises(InputError) as refused:
        classes = {which: [ImageFile(tree, name) for name in names if name[0] == which] for which in "ab"}
        import_classes(tmp_path / "out.arrow", classes, schemes={}, preprocessing=PIXELS, origin={})
    assert str(refused.value).endswith(
        "a/notes.txt: not an image that Pillow can read. Classes hold images alone: move it elsewhere, or repair it; "
        "so it is with b/list.csv, b/more.md, by the ending"
    )
