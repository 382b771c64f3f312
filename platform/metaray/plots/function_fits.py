"""Functions of one number before and after adaptation, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.plots.palette import INK, MUTED, SERIES
from metaray.plots.task_pictures import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float32] | NDArray[np.float64]

# Query points of a task that is drawn, where its source has so many.
DENSE = 200
PANELS_A_ROW = 3


class FunctionFit(NamedTuple):
    """One regression task on a function, and a learner's predictions for it.

    Attributes:
        support_x: Inputs of the support set [K].
        support_y: Targets of the support set [K].
        x: Inputs of the predictions [n], ascending.
        y: True values [n]; None if they are unknown.
        before: Predictions [n] with zero inner steps; None if the algorithm takes no inner steps.
        after: Predictions [n] after adaptation.
    """

    support_x: Numbers
    support_y: Numbers
    x: Numbers
    y: Numbers | None
    before: Numbers | None
    after: Numbers


def fit_of(
    learner: Learner,
    support: tuple[Numbers, Numbers],
    x: Numbers,
    y: Numbers | None,
    *,
    inner_steps: int | None = None,
) -> FunctionFit:
    """Adapt a learner to pairs (x, y) of numbers, and predict at other inputs; all arrays are [n, 1]."""
    order = np.argsort(x[:, 0], kind="stable")
    x = x[order]

    def predicted(steps: int | None) -> NDArray[np.float32]:
        task = learner.adapt(*support, inner_steps=steps)
        return replace(task, on_doubt=lambda _: None).predict_values(x)  # a picture says nothing

    before = predicted(0) if learner.algorithm.gradient_steps else None
    return FunctionFit(
        support_x=support[0][:, 0],
        support_y=support[1][:, 0],
        x=x[:, 0],
        y=None if y is None else y[order, 0],
        before=None if before is None else before[:, 0],
        after=predicted(inner_steps)[:, 0],
    )


def fits_of(learner: Learner, source: Source, spec: EpisodeSpec, seed: int, count: int = 6) -> list[FunctionFit]:
    """The fits of a learner to the first meta-test tasks of a source of functions.

    Args:
        learner: Learner to adapt.
        source: Source of functions from one number to one number.
        spec: Spec of the tasks; each has `DENSE` query points, if the source has so many.
        seed: Seed of the sequence of episodes.
        count: Number of tasks.
    """
    try:
        dense = EpisodeSpec(shots=spec.shots, queries=DENSE)
        source.check("meta-test", dense)
        # Where queries are a range, their number is drawn before the task, which would be another without that draw.
        spec = dense if isinstance(spec.queries, int) else spec
    except InputError:
        pass
    episodes = (sample_episode(source, spec, "meta-test", seed, index) for index in range(count))
    return [fit_of(learner, (e.task.support.x, e.task.support.y), *e.task.query) for e in episodes]


def draw_fits(fits: Sequence[FunctionFit], path: Path, title: str) -> None:
    """Write a PNG, a panel a task: the function, the support set, and the predictions before and after adaptation.

    Raises:
        InputError: `path` can't be written.
    """
    # Imported here, since it takes most of a second that would come before the first step.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(len(fits), PANELS_A_ROW)
    down = -(-len(fits) // across)
    figure = Figure(figsize=(1 + 4 * across, 1 + 3 * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes, fit in zip(panels, fits, strict=False):
        _draw(axes, fit)
    for axes in panels[len(fits) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * across)
    figure.suptitle(title, parse_math=False)
    save_picture(figure, path, dpi=120)


def _draw(axes: Axes, fit: FunctionFit) -> None:
    marker = "." if len(fit.x) < DENSE // 4 else ""
    if fit.y is not None:
        axes.plot(fit.x, fit.y, color=INK, linewidth=1, marker=marker, label="function")
    if fit.before is not None:
        axes.plot(fit.x, fit.before, color=MUTED, linestyle="--", marker=marker, label="before adaptation")
    axes.plot(fit.x, fit.after, color=SERIES[1], linestyle="-.", marker=marker, label="after adaptation")
    axes.plot(fit.support_x, fit.support_y, color=SERIES[0], marker="o", linestyle="", label="support")
    if fit.y is not None:
        axes.set_title(f"mse {np.mean((fit.after - fit.y) ** 2):.4f}", fontsize="medium")
    axes.grid(alpha=0.3)
