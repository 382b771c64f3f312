"""The learning curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaray.plots.palette import INK, line_of
from metaray.records.journal import Metric
from metaray.tasks.score import SCORES, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, VAL = line_of(0), line_of(1)


def draw_learning_curve(metrics: Sequence[Metric], path: Path, title: str) -> None:
    """Write the figure of `learning_curve` as a PNG."""
    learning_curve(metrics, title).savefig(path, format="png", dpi=120)


def learning_curve(metrics: Sequence[Metric], title: str) -> Figure:
    """The loss of a run on the left, the quality on the right.

    Quality is the score of which there are metrics (`train/accuracy` and `val/accuracy`, or another one of
    `metaray.tasks.score.SCORES`). The loss is `train/loss` and `val/loss`. What is missing is left out.
    """
    # Imported here, since it takes most of a second that would come before the first step.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, parse_math=False)
    _train(left, *series(metrics, "train/loss"))
    _val(left, *series(metrics, "val/loss"))
    keys = {metric.key for metric in metrics}
    quality = next((name for name in SCORES if {f"train/{name}", f"val/{name}"} & keys), "accuracy")
    _train(right, *series(metrics, f"train/{quality}"))
    steps, values = series(metrics, f"val/{quality}")
    _val(right, steps, values)
    _best(right, steps, values, SCORES[quality])
    for axes, label in ((left, "loss"), (right, quality)):
        axes.set_xlabel("meta-step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Moving averages over a centred window, which is cut at both ends of the values."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    means: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return means


def series(metrics: Sequence[Metric], key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps and finite values of `key`, by step; of a step logged twice (after a resume) the later value."""
    latest = {m.step: m.value for m in metrics if m.key == key and np.isfinite(m.value)}
    steps = sorted(latest)
    return np.array(steps, dtype=np.int64), np.array([latest[step] for step in steps], dtype=np.float64)


def _train(axes: Axes, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    if len(steps) == 0:
        return
    axes.plot(steps, values, color=TRAIN["color"], alpha=0.25, linewidth=0.8)
    axes.plot(steps, smoothed(values, max(1, len(values) // 30)), **TRAIN | {"marker": ""}, label="meta-train")


def _val(axes: Axes, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    if len(steps) > 0:
        axes.plot(steps, values, **VAL, markersize=4, label="meta-val")


def _best(axes: Axes, steps: NDArray[np.int64], values: NDArray[np.float64], score: Score) -> None:
    if len(steps) == 0:
        return
    best = score.best(values.tolist())
    label = f"best: {values[best]:.4f} at step {steps[best]}"
    axes.plot(steps[best], values[best], color=INK, marker="*", markersize=14, linestyle="", label=label)
