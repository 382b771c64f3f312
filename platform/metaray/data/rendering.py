"""Letters as bitmaps, in every face that matplotlib ships."""

import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 28
# The longer side of the ink in pixels, as in MNIST; rendered larger, so that hinting does not bend thin strokes.
INK_SIZE = 20
RENDER_SIZE = 64

Bitmap = NDArray[np.uint8]


def render_all(scripts: Collection[str]) -> dict[str, list[Bitmap]]:
    """Bitmaps [28, 28] of each letter of `scripts`, one for each face that has it."""
    import matplotlib

    renderings: dict[str, list[Bitmap]] = {}
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        if path.name.startswith("LastResort"):
            continue
        font = ImageFont.truetype(str(path), RENDER_SIZE, layout_engine=ImageFont.Layout.BASIC)
        # Not a character: what the face shows for those that it lacks.
        missing = _render(font, "\uffff")
        for character in _letters_of(path, scripts):
            bitmap = _render(font, character)
            if bitmap is not None and (missing is None or not np.array_equal(bitmap, missing)):
                renderings.setdefault(character, []).append(bitmap)
    return renderings


def script_of(character: str) -> str:
    """The first word of a letter's Unicode name; empty for what is no letter."""
    if not unicodedata.category(character).startswith("L"):
        return ""
    return unicodedata.name(character, "").split(" ")[0]


def _letters_of(path: Path, scripts: Collection[str]) -> Iterator[str]:
    """The letters of `scripts` that a face really has, sorted."""
    from matplotlib.ft2font import FT2Font

    face = FT2Font(str(path))
    for code, glyph in sorted(face.get_charmap().items()):
        character = chr(code)
        if script_of(character) not in scripts:
            continue
        # The Computer Modern faces have TeX's encoding: only some ASCII letters are what their codes say.
        if path.name.startswith("cm") and face.get_glyph_name(glyph) != character:
            continue
        yield character


def _render(font: ImageFont.FreeTypeFont, character: str) -> Bitmap | None:
    """[28, 28], ink high, proportions kept, centred on the ink; None for a blank."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    if right <= left or bottom <= top:
        return None
    canvas = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=font)
    box = canvas.getbbox()
    if box is None:
        return None
    ink = canvas.crop(box)
    scale = INK_SIZE / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    glyph = Image.new("L", (SIDE, SIDE))
    corner = ((SIDE - width) // 2, (SIDE - height) // 2)
    glyph.paste(ink.resize((width, height), Image.Resampling.LANCZOS), corner)
    return np.array(glyph)
