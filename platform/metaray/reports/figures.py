"""Charts as SVG that takes its colours from the page: readable on white and on black, and by colour-blind people.

A chart is drawn with colours that stand for variables of the page's style sheet, and each series has a marker and a
line style of its own besides its colour. The colours themselves are in `page.css`: on white those of
`metaray.plots.palette`, and others on black.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from metaray.plots.palette import MARKS
from metaray.reports.settings import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
POINTS_AN_INCH = 72
LONGEST_LABEL = 40
LETTER_INCHES, HANDLE_INCHES = 0.075, 0.75
"""Room that a letter of a legend, and the mark before it, take."""


class Look(NamedTuple):
    """How a series is told from others, with colour and without."""

    color: str
    marker: str
    linestyle: Any


LOOKS = tuple(Look(f"#0102{place:02x}", marker, linestyle) for place, (marker, linestyle) in enumerate(MARKS, start=1))
VARIABLES |= {look.color: f"--series-{place}" for place, look in enumerate(LOOKS, start=1)}
COLOR = re.compile(rf"(fill|stroke): ({'|'.join(VARIABLES)})\b")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metaray",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "font.size": 10,
}


def look(place: int) -> Look:
    """The look of the series at a place; after six the looks come again."""
    return LOOKS[place % len(LOOKS)]


def chart(draw: Callable[[Axes], None], told: str, *, width: float = 5.2, height: float = 3.0) -> Markup:
    """An `<svg>` element to be put into a page.

    Args:
        draw: Draws into the axes it is given, in colours of this module.
        told: What the chart shows, for those who do not see it.
        width: Inches, of 72 points; a page may show it smaller.
        height: Inches.
    """
    # Imported here, since it takes most of a second. Not pyplot: it keeps global state.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    # Names may hold letters that matplotlib's font lacks; the browser has others.
    with warnings.catch_warnings(), rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        draw(axes)
        _explain(figure, axes)
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    return Markup(_for_a_page(buffer.getvalue(), clean(told), round(width * POINTS_AN_INCH)))


def _explain(figure: Figure, axes: Axes) -> None:
    """A legend below, where there is something to explain; names in it are no formulas."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    columns = int(figure.get_figwidth() / (LETTER_INCHES * max(map(len, names)) + HANDLE_INCHES))
    legend = figure.legend(handles, names, loc="outside lower center", ncols=max(1, min(columns, len(names))))
    for text in legend.get_texts():
        text.set_parse_math(False)


def label(text: object) -> str:
    """A name as it stands in a chart: clean, on one line, and not longer than there is room for."""
    found = " ".join(clean(text).split())
    return found if len(found) <= LONGEST_LABEL else f"{found[: LONGEST_LABEL - 14]}...{found[-11:]}"


def _for_a_page(svg: str, told: str, width: int) -> str:
    """The picture without its own head and metadata, and with names of its own, since charts of a page share theirs."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{own}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{own}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = COLOR.sub(lambda found: f"{found[1]}: var({VARIABLES[found[2]]})", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = f'<svg class="chart" style="max-width: {width}pt" role="img" aria-label="{escape(told)}" {box[0]}>'
    return f"{head}{svg[svg.index('>') + 1 :]}".strip()
