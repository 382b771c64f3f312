"""Letters of the faces that matplotlib ships."""

import numpy as np
import pytest

from metaray.data.rendering import INK_SIZE, SIDE, render_all, script_of


@pytest.mark.parametrize(("character", "script"), [("A", "LATIN"), ("\u0391", "GREEK"), ("3", ""), (" ", "")])
def test_scripts(character: str, script: str) -> None:
    assert script_of(character) == script


def test_only_the_scripts_that_are_asked_for() -> None:
    found = render_all({"LAO"})
    assert found and {script_of(character) for character in found} == {"LAO"}
    for bitmap in (bitmap for bitmaps in found.values() for bitmap in bitmaps):
        assert bitmap.shape == (SIDE, SIDE) and bitmap.dtype == np.uint8
        assert max(bitmap.any(axis=axis).sum() for axis in (0, 1)) <= INK_SIZE
