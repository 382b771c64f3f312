"""The charts of a run's report. Each is a function of facts alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from metaray.plots.axes import HUGE, fits
from metaray.plots.learning_curve import series, smoothed
from metaray.records.estimate import Estimate
from metaray.records.journal import Metric
from metaray.reports.calibration import Calibration, Level
from metaray.reports.confusion import ClassScore
from metaray.reports.facts import Point
from metaray.reports.figures import GRID, INK, MUTED, chart, label, look
from metaray.tasks.baselines import title_of
from metaray.tasks.score import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from metaray.plots.function_fits import FunctionFit

MOST_DOTS = 1500
BARS = 24
"""Classes that have a bar each; more are a histogram."""


def curve(metrics: Sequence[Metric], name: str, score: Score | None) -> Markup | None:
    """A metric of meta-train and of meta-val over outer steps; None where it was not measured.

    Args:
        metrics: All that was measured.
        name: Name of the metric, behind `train/` and `val/`.
        score: What is better, where the best is to be marked.
    """
    train, val = (series(metrics, f"{split}/{name}") for split in ("train", "val"))
    if not len(train[0]) and not len(val[0]):
        return None

    def draw(axes: Axes) -> None:
        if len(train[0]):
            one = look(0)
            axes.plot(*train, color=one.color, alpha=0.3, linewidth=0.8)
            smooth = smoothed(train[1], max(1, len(train[1]) // 30))
            axes.plot(train[0], smooth, color=one.color, linestyle=one.linestyle, label="meta-train, smoothed")
        if len(val[0]):
            other = look(1)
            axes.plot(*val, color=other.color, marker=other.marker, linestyle=other.linestyle, label="meta-val")
        if score is not None and len(val[0]):
            best = score.best(val[1].tolist())
            told = f"best on meta-val, step {val[0][best]}"
            axes.plot(val[0][best], val[1][best], "*", color=INK, markersize=13, linestyle="", label=told)
        _named(axes, "outer step", name)

    return chart(draw, f"{name} of meta-train and meta-val over outer steps")


def intervals(rows: Sequence[tuple[str, Estimate]], quality: str) -> Markup:
    """Scores with their 95% intervals, one below the other."""

    def draw(axes: Axes) -> None:
        for place, (_, one) in enumerate(rows):
            if not fits(one.mean):
                continue
            style = look(place)
            wide = one.half_width if fits(one.half_width) else 0.0
            axes.errorbar(one.mean, place, xerr=wide, fmt=style.marker, color=style.color, capsize=4, markersize=7)
            axes.annotate(
                f"{one.mean:.4f}", (one.mean, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9
            )
        axes.set_yticks(range(len(rows)), [label(name) for name, _ in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.margins(x=0.12)
        _named(axes, quality, "")

    return chart(
        draw,
        f"{quality} with intervals: " + ", ".join(f"{name} {one.mean:.4f}" for name, one in rows),
        height=0.9 + 0.5 * len(rows),
    )


def points(
    found: Sequence[Point], what: str, quality: str, *, judged: int | None, level: Mapping[str, float] | None = None
) -> Markup:
    """A score against a number of inner steps or of shots.

    Args:
        found: The points, ascending.
        what: The number is of.
        quality: Name of the score.
        judged: The number that results are judged at, to be marked.
        level: Baselines that do not depend on it, by name.
    """

    def draw(axes: Axes) -> None:
        places = {point.at: place for place, point in enumerate(found)}
        lines = {"the learner": [point.score for point in found]}
        for name in found[0].baselines:
            lines[title_of(name)] = [point.baselines[name] for point in found if name in point.baselines]
        for number, (name, scores) in enumerate(lines.items()):
            one = look(number)
            wide = [score.half_width if fits(score.half_width) else 0.0 for score in scores]
            axes.errorbar(
                range(len(scores)),
                [score.mean if fits(score.mean) else math.nan for score in scores],
                wide,
                color=one.color,
                marker=one.marker,
                linestyle=one.linestyle,
                capsize=3,
                label=name,
            )
        for number, (name, value) in enumerate((level or {}).items(), start=len(lines)):
            axes.axhline(value, color=look(number).color, linestyle=look(number).linestyle, label=title_of(name))
        if judged in places:
            axes.axvline(places[judged], color=MUTED, linestyle=":", linewidth=1, label="as judged")
        axes.set_xticks(range(len(found)), [str(point.at) for point in found])
        _named(axes, what, quality)

    return chart(draw, f"{quality} by {what}: " + ", ".join(f"{one.at}: {one.score.mean:.4f}" for one in found))


def by_class(scores: Sequence[ClassScore], names: Mapping[int, str]) -> Markup:
    """The share of each class that was recognised: a bar each, or a histogram of many."""
    shares = [score.share for score in scores]

    def bars(axes: Axes) -> None:
        axes.barh(range(len(scores)), shares, color=look(0).color, alpha=0.85)
        axes.set_yticks(range(len(scores)), [label(names[score.number]) for score in scores], parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        _named(axes, "share recognised", "")

    def histogram(axes: Axes) -> None:
        axes.hist(shares, bins=20, range=(0, 1), color=look(0).color, alpha=0.85)
        axes.axvline(float(np.mean(shares)), color=INK, linestyle="--", label=f"mean {np.mean(shares):.3f}")
        _named(axes, "share of a class that is recognised", "classes")

    few = len(scores) <= BARS
    told = f"share recognised of {len(scores)} classes, from {min(shares):.3f} to {max(shares):.3f}"
    return chart(bars if few else histogram, told, height=1 + 0.22 * len(scores) if few else 3.0)


def reliability(found: Calibration) -> Markup:
    """Accuracy against confidence, by bin; the diagonal is confidence that can be believed."""

    def draw(axes: Axes) -> None:
        full = [one for one in found.bins if one.predictions]
        width = 1 / len(found.bins)
        middles = [(one.low + one.high) / 2 for one in full]
        most = max(one.predictions for one in full)
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="confidence = accuracy")
        axes.bar(
            middles,
            [one.accuracy for one in full],
            width * 0.9,
            color=look(0).color,
            alpha=0.35,
            label="accuracy of a bin",
        )
        sizes = [20 + 130 * math.sqrt(one.predictions / most) for one in full]
        axes.scatter(
            [one.confidence for one in full],
            [one.accuracy for one in full],
            sizes,
            color=look(1).color,
            marker="D",
            zorder=3,
            label="mean confidence, by size of the bin",
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        _named(axes, "confidence", "accuracy")

    return chart(
        draw, f"accuracy by confidence; expected calibration error {found.expected_error:.4f}", width=4.6, height=4.2
    )


def covered(levels: Sequence[Level]) -> Markup:
    """The share of targets inside the learner's own intervals, against the share that should be."""

    def draw(axes: Axes) -> None:
        axes.plot([0.4, 1], [0.4, 1], color=MUTED, linestyle="--", linewidth=1, label="as it should be")
        nominal, observed = zip(*levels, strict=True)
        axes.plot(nominal, observed, color=look(0).color, marker="o", label="observed")
        axes.set_ylim(0, 1.02)
        _named(axes, "probability of the interval", "share of targets inside")

    return chart(draw, "coverage of intervals", width=4.6, height=3.8)


def predicted(truth: NDArray[np.float64], told: NDArray[np.float64]) -> Markup:
    """Predicted values against true ones; of many an even choice."""
    known = (np.abs(truth) < HUGE) & (np.abs(told) < HUGE)
    every = max(1, -(-int(known.sum()) // MOST_DOTS))
    truth, told = truth[known][::every], told[known][::every]

    def draw(axes: Axes) -> None:
        low, high = (float(end([*truth, *told], default=0.0)) for end in (min, max))
        axes.plot([low, high], [low, high], color=MUTED, linestyle="--", linewidth=1, label="predicted = true")
        axes.plot(truth, told, linestyle="", marker="o", markersize=3, alpha=0.4, color=look(0).color, label="queries")
        _named(axes, "true value", "predicted value")

    return chart(draw, f"predicted against true values of {len(truth)} queries", width=4.6, height=4.2)


def histogram(values: NDArray[np.float64], what: str, count_of: str, *, zero: bool = False) -> Markup:
    """How values are distributed; of many with long tails the ends hold what lies beyond. What is not finite is left
    out."""
    known = values[np.abs(values) < HUGE]
    low, high = _ends(known)

    def draw(axes: Axes) -> None:
        axes.hist(known.clip(low, high), bins=30, range=(low, high), color=look(0).color, alpha=0.85)
        if len(known):
            axes.axvline(float(known.mean()), color=INK, linestyle="--", label=f"mean {known.mean():.4g}")
        if zero:
            axes.axvline(0, color=MUTED, linestyle=":", label="zero")
        _named(axes, what, count_of)

    left_out = f"; {len(values) - len(known)} are not finite" if len(known) < len(values) else ""
    return chart(draw, f"distribution of {what}{left_out}", height=3.0)


def _ends(known: NDArray[np.float64]) -> tuple[float, float]:
    """Where a histogram begins and ends; not so close together that thirty bins could not be told apart."""
    if not len(known):
        return 0.0, 1.0
    many = len(known) > 200
    low, high = map(float, np.quantile(known, (0.005, 0.995)) if many else (known.min(), known.max()))
    least = 1e-6 * max(abs(low), abs(high), 1e-300)
    return (low, high) if high - low > least else (low - max(least, 0.5), high + max(least, 0.5))


def fit(one: FunctionFit, told: str) -> Markup:
    """A task that is a function of one number: known points, the function, and the predictions before and after."""

    def draw(axes: Axes) -> None:
        plain: dict[str, Any] = {"marker": "." if len(one.x) < 50 else ""}
        if one.y is not None:
            axes.plot(one.x, one.y, color=INK, linewidth=1, label="function", **plain)
        if one.before is not None:
            axes.plot(one.x, one.before, color=MUTED, linestyle="--", label="before adaptation", **plain)
        axes.plot(one.x, one.after, color=look(1).color, linestyle="-.", label="after adaptation", **plain)
        axes.plot(one.support_x, one.support_y, color=look(0).color, marker="o", linestyle="", label="support")
        _named(axes, "x", "y")

    return chart(draw, told, width=4.6, height=3.2)


def _named(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(label(x), parse_math=False)
    axes.set_ylabel(label(y), parse_math=False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
