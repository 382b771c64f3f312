"""The charts of a search's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from metaray.plots.axes import FieldAxis, fits
from metaray.reports.figures import GRID, INK, MUTED, chart, label, look
from metaray.tuning.trial import Objective, Trial, TrialScore, TrialStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATUSES: tuple[TrialStatus, ...] = ("finished", "stopped early", "running", "waiting", "failed")
LEAST_APART = 0.13
"""Share of an axis that is left at least between two ticks with labels."""
FEW = 6
"""Trials that have a colour each, and a name in the legend."""


def trial_curves(trials: Sequence[Trial], objective: Objective, winner: Trial | None) -> Markup:
    """The objective against meta-train episodes seen, a line a trial; a cross where one was stopped."""

    def draw(axes: Axes) -> None:
        for place, trial in enumerate(trials):
            known = [one for one in trial.curve if fits(one.value)]
            if not known:
                continue
            wins, style = trial is winner, look(place)
            few = len(trials) <= FEW
            name = f"best: {trial.name}" if wins else trial.name if few else None
            axes.plot(
                [one.episodes for one in known],
                [one.value for one in known],
                label=name,
                zorder=3 if wins else 2,
                color=INK if wins else style.color if few else MUTED,
                linestyle=style.linestyle if few else "-",
                marker=style.marker if few or wins else "",
                markersize=4,
                linewidth=2.6 if wins else 1.2,
            )
            if trial.status in ("stopped early", "failed"):
                axes.plot(known[-1].episodes, known[-1].value, "x", color=INK, markersize=7, zorder=4)
        _named(axes, "meta-train episodes seen", f"meta-val {objective.name}")

    return chart(draw, f"meta-val {objective.name} of {len(trials)} trials over episodes", width=5.6, height=3.4)


def response(trials: Sequence[Trial], key: str, objective: Objective, winner: Trial | None, *, log: bool) -> Markup:
    """Each trial's best evaluation, with its interval, against its value of a field; a marker a status."""
    placed = [trial for trial in trials if key in trial.settings]
    scale = FieldAxis([trial.settings[key] for trial in placed], log=log)

    def draw(axes: Axes) -> None:
        scale.dress(axes)
        if scale.numeric:
            ticks = apart(scale)
            axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks], parse_math=False)
            axes.set_xticks([], minor=True)
        for place, status in enumerate(STATUSES):
            known = [
                (scale.at(trial.settings[key]), best)
                for trial in placed
                if trial.status == status and (best := best_of(trial, objective))
            ]
            if known:
                wide = [one.half_width if math.isfinite(one.half_width) else 0.0 for _, one in known]
                style = look(place)
                axes.errorbar(
                    [x for x, _ in known],
                    [one.value for _, one in known],
                    wide,
                    fmt=style.marker,
                    color=style.color,
                    capsize=2,
                    elinewidth=1,
                    label=f"{status} ({len(known)})",
                )
        best = best_of(winner, objective) if winner is not None and winner in placed else None
        if winner is not None and best is not None:
            axes.plot(
                scale.at(winner.settings[key]),
                best.value,
                "*",
                color=INK,
                markersize=14,
                zorder=5,
                linestyle="",
                label=f"best: {winner.name}",
            )
        _named(axes, key, f"meta-val {objective.name}, best")

    return chart(draw, f"meta-val {objective.name} against {key}", width=5.4, height=3.4)


def parallel(trials: Sequence[Trial], logs: dict[str, bool], objective: Objective, winner: Trial | None) -> Markup:
    """An upright axis for each field and one for the objective, a line a trial; the better, the stronger."""
    judged = [(trial, best.value) for trial in trials if (best := best_of(trial, objective)) is not None]
    judged.sort(key=lambda found: found[1], reverse=not objective.highest)
    columns: dict[str, list[Any]] = {key: [trial.settings.get(key) for trial, _ in judged] for key in logs}
    columns[f"meta-val {objective.name}"] = [value for _, value in judged]

    def draw(axes: Axes) -> None:
        places = []
        for x, (key, column) in enumerate(columns.items()):
            scale = FieldAxis([value for value in column if value is not None], log=logs.get(key, False))
            axes.vlines(x, 0, 1, color=MUTED, linewidth=1)
            axes.text(x, 1.06, label(key), ha="center", va="bottom", parse_math=False, fontsize=9)
            for at, text in scale.ticks():
                axes.text(x - 0.03, scale.share(at), text, ha="right", va="center", fontsize=8, parse_math=False)
            places.append([math.nan if value is None else scale.share(scale.at(value)) for value in column])
        for number, (trial, _) in enumerate(judged):
            wins, rank = trial is winner, (number + 1) / len(judged)
            axes.plot(
                [column[number] for column in places],
                color=INK if wins else look(0).color,
                alpha=1 if wins else 0.15 + 0.75 * rank,
                linewidth=2.6 if wins else 1.3,
                marker=look(0).marker,
                markersize=4,
                label=f"best: {trial.name}" if wins else None,
            )
        axes.set_axis_off()
        axes.set_xlim(-0.35, len(columns) - 0.75)

    return chart(
        draw,
        f"settings of {len(judged)} trials beside meta-val {objective.name}",
        width=max(5.0, 1.9 * len(columns)),
        height=3.8,
    )


def apart(scale: FieldAxis) -> list[tuple[float, str]]:
    """The ticks of an axis of numbers: both ends, and those between that leave room for their labels."""
    found = scale.ticks()
    last, kept = scale.share(found[-1][0]), found[:1]
    for tick in found[1:-1]:
        share = scale.share(tick[0])
        if share - scale.share(kept[-1][0]) >= LEAST_APART and last - share >= LEAST_APART:
            kept.append(tick)
    return kept + (found[-1:] if len(found) > 1 else [])


def best_of(trial: Trial, objective: Objective) -> TrialScore | None:
    """Its best evaluation, if a chart can show it."""
    best = trial.best(objective)
    return best if best is not None and fits(best.value) else None


def _named(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(label(x), parse_math=False)
    axes.set_ylabel(label(y), parse_math=False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
