"""The colours of reports, pictures and drawings: what has to be told apart is far apart, for colour-blind people too.

How colours look to them: Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
deficiency" (2009), at full severity, on linear light. Distances are Euclidean, in CIE Lab; contrast is WCAG's.
"""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import metaray.reports
from metaray.plots.palette import INK, MARKS, MUTED, RIGHT, SERIES, WRONG, line_of
from tests.docs.pages import ROOT

Colour = NDArray[np.float64]

EYES = {
    "no deficiency": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ @ np.ones(3)

APART, APART_WITH_A_SIGN, AS_DRAWN = 26.0, 30.0, 20.0
"""Least distances: of series, of right and wrong, and of the colours of a drawing, which also says what they are."""
OF_TEXT, OF_LINES = 4.5, 3.0
"""Least contrasts: WCAG 2.1, 1.4.3 and 1.4.11."""


def linear(text: str) -> Colour:
    """Linear light of `#rrggbb` or `#rgb`."""
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    share = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(light: Colour) -> Colour:
    """CIE Lab of linear light."""
    share = XYZ @ np.clip(light, 0, 1) / WHITE
    x, y, z = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str) -> float:
    """The smallest of those that any eye sees."""
    return min(
        float(np.linalg.norm(lab(np.asarray(eye) @ linear(one)) - lab(np.asarray(eye) @ linear(other))))
        for eye in EYES.values()
    )


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def schemes() -> dict[str, dict[str, str]]:
    """The variables of the reports' style sheet, on white and on black."""
    folder = metaray.reports.__path__[0]
    with open(f"{folder}/page.css", encoding="utf-8") as file:
        light, dark = file.read().split("@media (prefers-color-scheme: dark)")
    return {name: dict(re.findall(r"--([\w-]+): (#\w+)", part)) for name, part in (("light", light), ("dark", dark))}


SCHEMES = schemes()


def test_the_measures_are_those_of_the_papers() -> None:
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=1e-3)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert contrast("#fff", "#000000") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.01
    )
    assert distance("#d55e00", "#b58900") < 15 < 80 < distance("#000000", "#ffffff")
    assert all(np.asarray(eye).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5) for eye in EYES.values())


@pytest.mark.parametrize("name", SCHEMES)
def test_series_of_a_report_are_told_apart(name: str) -> None:
    colours = SCHEMES[name]
    series = [colours[f"series-{place}"] for place in range(1, len(MARKS) + 1)]
    assert min(distance(*pair) for pair in combinations([*series, colours["ink"]], 2)) >= APART
    assert min(distance(colours["muted"], one) for one in series[:2]) >= 15  # thin, dashed, and beside these alone
    assert distance(colours["good"], colours["bad"]) >= APART_WITH_A_SIGN


@pytest.mark.parametrize("name", SCHEMES)
def test_a_report_is_read_on_its_background(name: str) -> None:
    colours = SCHEMES[name]
    texts = [colours[one] for one in ("ink", "muted", "link", "good", "bad")]
    assert min(contrast(text, colours[ground]) for text in texts for ground in ("paper", "panel")) >= OF_TEXT
    lines = [colour for one, colour in colours.items() if one.startswith("series-")]
    assert min(contrast(line, colours["paper"]) for line in lines) >= OF_LINES


def test_pictures_have_the_colours_of_a_report_on_white() -> None:
    light = SCHEMES["light"]
    assert [light[f"series-{place}"] for place in range(1, len(SERIES) + 1)] == list(SERIES)
    assert (light["ink"], light["muted"], light["good"], light["bad"]) == (INK, MUTED, RIGHT, WRONG)
    looks = [tuple(map(str, line_of(place).values())) for place in range(len(SERIES) * len(MARKS))]
    assert len(set(looks)) == len(looks)


def test_pictures_name_no_colour_of_their_own() -> None:
    """Beside black and white, and the scale from dark to pale, which differs in lightness."""
    for file in sorted((ROOT / "platform" / "metaray" / "plots").glob("*.py")):
        text = file.read_text()
        named = set(re.findall(r'"(tab:\w+|C\d|#[0-9a-f]{6})"', text)) | set(re.findall(r'color="(\w+)"', text))
        assert file.name == "palette.py" or named <= {"black", "white", "none", "gold", "dimgray"}, (file.name, named)


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "drawings").glob("*.svg")), ids=lambda file: file.stem)
def test_drawings(file: Path) -> None:
    text = file.read_text()
    (ground, *_) = re.findall(r'<rect width="\d+" height="\d+" rx="10" fill="(#\w+)"', text)
    grounds = [ground, *re.findall(r'<rect [^>]*fill="(#[ef]\w+)" stroke="(?!none)', text)]
    inks = set(re.findall(r'<text [^>]*fill="(#\w+)"', text))
    strokes = set(re.findall(r'stroke="(#\w+)"', text)) - set(re.findall(r'rx="10" fill="#\w+" stroke="(#\w+)"', text))
    assert inks and strokes
    assert min(contrast(ink, on) for ink in inks for on in grounds) >= OF_TEXT
    strong = {one for one in strokes if contrast(one, ground) >= OF_LINES}
    assert strokes - strong <= {"#cbd5e1", "#e5e7eb"}, "lines that are more than a frame"
    assert min((distance(*pair) for pair in combinations(sorted(strong | inks), 2)), default=99.0) >= AS_DRAWN
