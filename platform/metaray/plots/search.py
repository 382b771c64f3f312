"""A search as pictures: its learning curves, and its objective against what was searched.

What is not finite is left out. Dark colours are good and pale ones bad; the winner is black and thick, its best
evaluation a star.
"""

from __future__ import annotations

import math
import re
import textwrap
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metaray.plots.axes import MAX_LABELS, FieldAxis, fits
from metaray.plots.palette import MUTED, SERIES, line_of
from metaray.tuning.table import is_number, is_schedule, searched_keys
from metaray.tuning.trial import Objective, Trial, TrialScore, winner_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MISSING = -0.12  # below an axis from 0 to 1
FAILED = SERIES[1]
POINTS = {
    "waiting": ("d", SERIES[3]),
    "running": ("^", SERIES[2]),
    "stopped early": ("s", MUTED),
    "finished": ("o", SERIES[0]),
}
ENDS = {"stopped early": ("x", ""), "failed": ("X", FAILED)}


def draw_all(
    trials: Sequence[Trial],
    logs: Mapping[str, bool],
    objective: Objective,
    folder: Path,
    title: str,
) -> list[Path]:
    """Draw every plot that applies to a search into the existing folder `folder`; returns their paths.

    A searched field has a logarithmic axis if `logs` says so.
    """
    searched = searched_keys(trials)
    scheduled = [key for key in searched if any(is_schedule(trial.settings.get(key)) for trial in trials)]
    plain = {key: logs.get(key, False) for key in searched if key not in scheduled}
    written = [folder / "curves.png"]
    draw_curves(trials, objective, written[0], title)
    for key, log in plain.items():
        written.append(folder / _file_name(f"{objective.name}-by-{key}"))
        draw_response(trials, key, objective, written[-1], log=log, title=title)
    if len(plain) > 1:
        written.append(folder / "parallel.png")
        draw_parallel(trials, plain, objective, written[-1], title)
    for key in scheduled:
        written.append(folder / _file_name(f"schedule-{key}"))
        draw_schedule(trials, key, objective, written[-1], title)
    return written


def draw_curves(trials: Sequence[Trial], objective: Objective, path: Path, title: str) -> None:
    """Write the figure of `curves` as a PNG."""
    curves(trials, objective, title).savefig(path, format="png")


def curves(trials: Sequence[Trial], objective: Objective, title: str) -> Figure:
    """The objective against meta-train episodes seen, a line a trial.

    Where a trial was stopped there is an x, where it failed a filled one: on the bottom edge if before any evaluation.
    """
    lines = []
    for trial in trials:
        judged, best = [j for j in trial.curve if fits(j.value)], _best(trial, objective)
        if best is not None:
            xs, ys = [j.episodes for j in judged], [j.value for j in judged]
            lines.append(_Line(trial, best, xs, ys, (best.episodes, best.value)))
    early = sum(trial.status == "failed" and _best(trial, objective) is None for trial in trials)
    figure, axes = _figure(title, "meta-train episodes seen", f"meta-val {objective.name}")
    _draw_lines(figure, axes, lines, objective, winner_of(trials, objective), "default")
    if early:
        axes.plot(0, 0.02, "X", color=FAILED, transform=axes.get_xaxis_transform(), label=f"failed at once ({early})")
    _finish(figure, axes, None, empty=not lines, log=_wide([y for line in lines for y in line.y], objective))
    return figure


def draw_schedule(trials: Sequence[Trial], key: str, objective: Objective, path: Path, title: str) -> None:
    """Draw the values of `key` that each trial trained with, up to its last evaluation, to a PNG file.

    A number is a constant schedule. A star marks the winner's best evaluation.
    """
    lines = []
    for trial in trials:
        value: Any = trial.settings.get(key)
        best = _best(trial, objective)
        value = {"steps": [0], "values": [value]} if is_number(value) else value
        if best is None or not is_schedule(value) or not all(map(fits, value["values"])):
            continue
        end, begins, values = trial.curve[-1].step, value["steps"], value["values"]
        xs = [*(step for step in begins if step < end), end]
        ys = [*values[: len(xs) - 1], values[max(len(xs) - 2, 0)]]
        lines.append(_Line(trial, best, xs, ys, (best.step, values[max(bisect_left(begins, best.step) - 1, 0)])))
    figure, axes = _figure(title, "outer step", key)
    _draw_lines(figure, axes, lines, objective, winner_of(trials, objective), "steps-post")
    _finish(figure, axes, path, empty=not lines, log=min((y for line in lines for y in line.y), default=0) > 0)


def draw_response(
    trials: Sequence[Trial],
    key: str,
    objective: Objective,
    path: Path,
    *,
    log: bool,
    title: str,
) -> None:
    """Draw each trial's best evaluation, with its 95% interval, against its value of `key`, to a PNG file.

    Failed trials are ticks on the bottom edge. Unless all values are numbers, each is a category.
    """
    winner = winner_of(trials, objective)
    scale = FieldAxis([trial.settings[key] for trial in trials if key in trial.settings], log=log)
    placed = [(trial, scale.at(trial.settings[key])) for trial in trials if key in trial.settings]
    judged = [(trial, x, best) for trial, x in placed if (best := _best(trial, objective)) is not None]
    figure, axes = _figure(title, key, f"meta-val {objective.name}, best evaluation")
    scale.dress(axes)
    for status, (marker, colour) in POINTS.items():
        points = [(x, best) for trial, x, best in judged if trial.status == status]
        _draw_points(axes, points, f"{status} ({len(points)})", marker, colour)
    _draw_failed(axes, [x for trial, x in placed if trial.status == "failed"])
    for trial, x, best in judged:
        if trial is winner:
            _star(axes, x, best.value, f"best: {trial.name}, {_told(best)}")
    shown = [best.value for *_, best in judged]
    _finish(figure, axes, path, empty=not shown, log=_wide(shown, objective))


def draw_parallel(
    trials: Sequence[Trial], logs: Mapping[str, bool], objective: Objective, path: Path, title: str
) -> None:
    """Draw parallel coordinates to a PNG file: an axis for each key of `logs` and for the objective.

    Each trial with an evaluation is a line. A trial that lacks a field, or has None there, passes below that axis, at
    "none".
    """
    judged = [(trial, best.value) for trial in trials if (best := _best(trial, objective)) is not None]
    judged.sort(key=lambda found: found[1], reverse=not objective.highest)  # the best on top
    scores = [value for _, value in judged]
    columns: dict[str, list[Any]] = {key: [trial.settings.get(key) for trial, _ in judged] for key in logs}
    columns[f"meta-val {objective.name}"] = scores
    figure, axes = _figure(title, width=min(max(10.0, 1.8 * len(columns)), 40.0))
    places = []
    for x, (key, column) in enumerate(columns.items()):
        known = [value for value in column if value is not None]
        scale = FieldAxis(known, log=logs.get(key, _wide(scores, objective)))
        ticks = [(scale.share(at), label) for at, label in scale.ticks()] if judged else []
        _draw_axis(axes, x, key, ticks + [(MISSING, "none")] * (len(known) < len(column)))
        places.append([MISSING if value is None else scale.share(scale.at(value)) for value in column])
    colours = _rgba(_shade(scores, objective), scores)
    winner = winner_of(trials, objective)
    for (trial, value), colour, *ys in zip(judged, colours, *places, strict=True):
        wins = trial is winner
        axes.plot(ys, label=f"best: {trial.name}, {value:.4g}" if wins else None, **_style(colour, wins=wins))
    axes.set_axis_off()
    axes.set_xlim(-0.3, len(columns) - 0.5)
    _finish(figure, axes, path, empty=not judged, log=False)


class _Line(NamedTuple):
    """A trial in a picture, and where on it its best evaluation is."""

    trial: Trial
    best: TrialScore
    x: list[int]
    y: list[float]
    star: tuple[int, float]


def _draw_lines(
    figure: Figure, axes: Axes, lines: Sequence[_Line], objective: Objective, winner: Trial | None, drawstyle: str
) -> None:
    """A look and a label a trial where they are few, else coloured by its best evaluation, the best on top."""
    few = len(lines) <= MAX_LABELS
    if not few:
        lines = sorted(lines, key=lambda line: line.best.value, reverse=not objective.highest)
    shade = _shade([line.best.value for line in lines], objective)
    shades = _rgba(shade, [line.best.value for line in lines])
    looks = [line_of(place) if few else {"color": shades[place], "marker": "."} for place in range(len(lines))]
    for place, (trial, best, xs, ys, star) in enumerate(lines):
        style = looks[place] | {"markersize": 4} | _style(looks[place]["color"], wins=trial is winner)
        label = f"{trial.name}: {best.value:.4g}" if few or trial is winner else None
        axes.plot(xs, ys, drawstyle=drawstyle, label=label, **style)
        if trial.status in ENDS:
            mark, ink = ENDS[trial.status]
            axes.plot(xs[-1], ys[-1], mark, color=ink or style["color"], markersize=8, zorder=4)
        if trial is winner:
            _star(axes, *star, "best")
    for status, (mark, ink) in ENDS.items():
        if count := sum(line.trial.status == status for line in lines):
            axes.plot([], [], mark, color=ink or "dimgray", label=f"{status} ({count})")
    if not few:
        figure.colorbar(shade, ax=axes, label=f"meta-val {objective.name}, best evaluation")


def _draw_points(axes: Axes, points: Sequence[tuple[float, TrialScore]], label: str, marker: str, colour: str) -> None:
    if points:
        xs, ys = [x for x, _ in points], [best.value for _, best in points]
        widths = [abs(best.half_width) if fits(best.half_width) else math.nan for _, best in points]
        axes.errorbar(xs, ys, widths, fmt=marker, color=colour, elinewidth=1, capsize=2, alpha=0.8, label=label)


def _draw_failed(axes: Axes, xs: Sequence[float]) -> None:
    """Ticks on the bottom edge."""
    if xs:
        edge, label = axes.get_xaxis_transform(), f"failed ({len(xs)})"
        axes.plot(xs, [0.03] * len(xs), "|", color=FAILED, markersize=14, transform=edge, label=label)


def _draw_axis(axes: Axes, x: int, name: str, ticks: Sequence[tuple[float, str]]) -> None:
    """An upright axis from 0 to 1."""
    axes.vlines(x, 0, 1, color="black", linewidth=1, zorder=4)
    axes.text(x, 1.05, name.replace(".", ".\n"), ha="center", va="bottom", parse_math=False)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    for y, label in ticks:
        axes.text(x - 0.03, y, label, ha="right", va="center", fontsize=8, parse_math=False, zorder=5, bbox=box)


def _star(axes: Axes, x: float, y: float, label: str) -> None:
    axes.plot(x, y, "*", color="gold", markeredgecolor="black", markersize=16, zorder=6, label=label)


def _style(colour: Any, *, wins: bool) -> dict[str, Any]:
    return {"color": "black" if wins else colour, "linewidth": 3 if wins else 1.3, "zorder": 3 if wins else 2}


def _figure(title: str, xlabel: str = "", ylabel: str = "", width: float = 10.0) -> tuple[Figure, Axes]:
    # Imported here, since it takes most of a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, int(9 * width)), parse_math=False)
    axes = figure.subplots()
    axes.set_xlabel(xlabel, parse_math=False)
    axes.set_ylabel(ylabel, parse_math=False)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: Path | None, *, empty: bool, log: bool) -> None:
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if empty:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no evaluation yet", ha="center", va="center", fontsize=14, transform=axes.transAxes)
    if labels := axes.get_legend_handles_labels()[1]:
        few = len(labels) <= 6
        figure.legend(loc="outside lower center" if few else "outside right upper", ncols=3 if few else 1, fontsize=9)
    if path is not None:
        figure.savefig(path, format="png")


def _shade(values: Sequence[float], objective: Objective) -> ScalarMappable:
    """Colours for values of the objective: the better, the darker."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    kind = LogNorm if _wide(values, objective) else Normalize
    norm = kind(min(values, default=0.0), max(values, default=1.0))
    return ScalarMappable(norm, "viridis_r" if objective.highest else "viridis")


def _rgba(shade: ScalarMappable, values: Sequence[float]) -> list[Any]:
    return list(shade.to_rgba(np.array(values)))


def _wide(values: Sequence[float], objective: Objective) -> bool:
    """Whether the objective needs a log axis: a loss over orders of magnitude, as where trials diverge."""
    return not objective.highest and min(values, default=0.0) > 0 and max(values) > 100 * min(values)


def _best(trial: Trial, objective: Objective) -> TrialScore | None:
    best = trial.best(objective)
    return best if best is not None and fits(best.value) else None


def _told(judged: TrialScore) -> str:
    return f"{judged.value:.4g}" + (f" \u00b1 {judged.half_width:.2g}" if math.isfinite(judged.half_width) else "")


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text) + ".png"
