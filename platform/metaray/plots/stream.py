"""Accuracy over the number of classes of a stream, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metaray.plots.palette import MUTED, line_of
from metaray.records.stream import StreamCurve
from metaray.tasks.baselines import title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, float]]
"""Numbers of classes, and the score after each."""


def draw_stream(curves: Mapping[str, StreamCurve], path: Path, title: str, beside: Mapping[str, Points] = {}) -> None:
    """Write the figure of `stream_figure` as a PNG, beside and renamed."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        stream_figure(curves, title, beside).savefig(scratch, format="png", dpi=120)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def stream_figure(curves: Mapping[str, StreamCurve], title: str, beside: Mapping[str, Points] = {}) -> Figure:
    """Plot the score of each stream with its interval over the orders, and the baselines.

    Args:
        curves: Curves by their names in the legend, all with the same score.
        title: Title of the plot.
        beside: Points of further curves, by name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(title, parse_math=False)
    place = 0
    for name, curve in curves.items():
        place = _line(axes, name, curve, place)
    for name, points in beside.items():
        places, values = zip(*points, strict=True)
        axes.plot(places, values, marker="s", markersize=4, linestyle="--", color=MUTED, label=name)
    axes.set_xlabel("classes that have arrived")
    axes.set_ylabel(next(iter(curves.values())).quality)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _line(axes: Axes, name: str, curve: StreamCurve, place: int) -> int:
    """Draw a curve and its baselines with the looks from a place on; returns the place after them."""
    scores = curve.scores
    means, widths = [one.mean for one in scores], [one.half_width for one in scores]
    bars = widths if len(curve.orders) > 1 else None
    axes.errorbar(curve.classes, means, yerr=bars, markersize=4, capsize=3, label=name, **line_of(place))
    for after, (baseline, orders) in enumerate(curve.baselines.items(), start=place + 1):
        averages = [sum(column) / len(column) for column in zip(*orders, strict=True)]
        axes.plot(curve.classes, averages, **line_of(after), markersize=4, label=f"{title_of(baseline)} beside {name}")
    return place + 1 + len(curve.baselines)
