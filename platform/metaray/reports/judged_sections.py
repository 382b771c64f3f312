"""What judging a learner tells besides its score, as sections of a page."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from metaray.plots.function_fits import FunctionFit
from metaray.records.judged import BY, By, Judged
from metaray.reports import charts
from metaray.reports.blocks import Absent, Block, Folded, Pairs, Pictures, Prose, Section, Table, Tasks
from metaray.reports.calibration import Calibration
from metaray.reports.facts import Classes, Measured, Point, RunFacts, Values
from metaray.reports.wording import duration, interval, number, size
from metaray.tasks.baselines import title_of

FEW_CLASSES, EXTREMES, MOST_ROWS = 16, 8, 400
WORST_GROUPS = 12
HEADINGS: dict[By, str] = {"support": "support examples", "query": "query examples", "group": "group"}


def absent(facts: RunFacts, topic: str, what: str) -> list[Block]:
    """A block that says that something is missing, if it is."""
    return [Absent(what, facts.missing[topic])] if topic in facts.missing else []


def adaptation(facts: RunFacts) -> Section:
    """The score by number of inner steps and by shots."""
    one, name, title = facts.measured, facts.score.name, "By inner steps and by shots"
    if one is None:
        return Section(title, absent(facts, "inner_steps", f"The {name} by number of inner steps and of shots"))
    drawn = []
    told = f"The first {one.few} episodes of {one.split}; bars are 95% intervals."
    if one.inner_steps:
        steps = charts.points(one.inner_steps, "inner steps", name, judged=one.judged_steps, level=_levels(one))
        drawn.append((steps, told))
    if len(one.shots) > 1:
        drawn.append((charts.points(one.shots, "shots", name, judged=one.judged_shots), told))
    blocks: list[Block] = [Pictures(drawn)] if drawn else []
    blocks += [
        _points_table(what, found) for what, found in (("inner steps", one.inner_steps), ("shots", one.shots)) if found
    ]
    if not one.inner_steps:
        blocks.append(Prose("The algorithm takes no inner steps, so there is nothing to vary there."))
    if one.no_more_shots:
        blocks.append(Prose(f"There are no further shots: {one.no_more_shots}."))
    return Section(title, blocks)


def kinds(facts: RunFacts) -> list[Section]:
    """Classes with their confusions and calibration, or values with their errors and intervals."""
    one = facts.measured
    if one is None:
        return [
            Section(
                "By class, or by error",
                absent(facts, "classes", "How well each class is told, or values are predicted"),
            ),
            Section("Calibration", absent(facts, "calibration", "Whether the learner's confidence can be believed")),
        ]
    if one.classes is not None:
        return [_classes(one, one.classes), _calibration(one, one.classes.calibration)]
    assert one.values is not None
    return [_errors(one, one.values, facts.score.name), _coverage(one, one.values)]


def examples(facts: RunFacts) -> Section:
    """Tasks with predictions."""
    one, title = facts.measured, "Example tasks"
    if one is None:
        return Section(title, absent(facts, "examples", "Example tasks with predictions"))
    blocks: list[Block] = []
    if one.values is not None and one.values.fits:
        blocks.append(Pictures([_fit(place, found) for place, found in enumerate(one.values.fits)]))
    else:
        blocks.append(Tasks(one.examples))
    return Section(title, blocks)


def parts(facts: RunFacts) -> Section:
    """The recorded meta-test episodes by size and by group."""
    blocks: list[Block] = absent(facts, "judged", "The score by size of the task and by group")
    if facts.judged is not None:
        found = [(by, facts.judged.parts(by)) for by in BY]
        blocks += [_part_table(facts.judged, by) for by, some in found if some]
    return Section("By size of the task, and by group", blocks)


def costs(facts: RunFacts) -> Section:
    """Time and memory."""
    rows: list[tuple[str, str]] = []
    result, one = facts.result, facts.measured
    if result is not None:
        rows += [
            ("training, evaluations included", f"{duration(result.seconds)} for {result.num_steps} outer steps"),
            ("meta-train episodes a second", number(result.episodes_per_s)),
            ("share of that time spent waiting for episodes", f"{result.wait_share:.1%}"),
        ]
        rows += [("judged on", result.device)] if result.device else []
        rows += [("execution", result.execution)] if result.execution else []
    if facts.environment.get("profile"):
        rows.append(("profile of some steps", facts.environment["profile"]))
    if one is not None:
        rows.append(("judging for this report", f"{duration(one.seconds)} on {one.device}"))
        if one.peak_bytes is not None:
            rows.append(("memory of the process that did so, at most", size(one.peak_bytes)))
    blocks: list[Block] = [Pairs(rows)] if rows else []
    return Section("Time and memory", blocks + absent(facts, "memory", "The memory that training took"))


def _levels(one: Measured) -> dict[str, float]:
    """Baselines at the judged number of shots, on as many episodes; they do not depend on inner steps."""
    at = next((point for point in one.shots if point.at == one.judged_shots), None)
    return {name: score.mean for name, score in at.baselines.items()} if at else {}


def _points_table(what: str, found: Sequence[Point]) -> Table:
    names = list(found[0].baselines)
    rows = [(str(one.at), interval(one.score), *(interval(one.baselines[name]) for name in names)) for one in found]
    return Table((what, "the learner", *map(title_of, names)), rows)


def _classes(one: Measured, found: Classes) -> Section:
    queries = f"{found.calibration.predictions} queries of {len(found.scores)} classes"
    asked = f"{one.episodes} episodes of {one.split}, {queries}."
    rows = [
        (found.names[score.number], f"{score.share:.3f}", f"{score.right} of {score.asked}") for score in found.scores
    ]
    head = ("class", "share recognised", "queries")
    blocks: list[Block] = [Pictures([(charts.by_class(found.scores, found.names), asked)])]
    if len(rows) > FEW_CLASSES:
        blocks.append(Table(head, rows[:EXTREMES], "The classes that are recognised least"))
        blocks.append(Table(head, rows[: -EXTREMES - 1 : -1], "The classes that are recognised best"))
        which = (
            f"All {len(rows)} classes" if len(rows) <= MOST_ROWS else f"The {MOST_ROWS} worst of {len(rows)} classes"
        )
        blocks.append(Folded(which, [Table(head, rows[:MOST_ROWS])]))
    else:
        blocks.append(Table(head, rows))
    return Section("By class, and what is confused", [*blocks, _confused(found)])


def _confused(found: Classes) -> Block:
    rows = [
        (
            f"{found.names[one.truth]} \u2192 {found.names[one.told]}",
            f"{one.share:.3f}",
            f"{one.mistakes} of {one.asked}",
        )
        for one in found.confused
    ]
    caption = "The pairs that are confused most, by the lower end of the 95% interval of their share"
    head = ("class \u2192 taken for", "share mistaken", "queries, both in the task")
    return Table(head, rows, caption) if rows else Prose("No query was mistaken.")


def _calibration(one: Measured, found: Calibration) -> Section:
    error, largest = number(found.expected_error), number(found.largest_error)
    told = (
        f"The expected calibration error (Guo et al., 2017) is {error} with {len(found.bins)} bins of equal width, the "
        f"largest error of a bin {largest}; {found.predictions} queries of {one.episodes} episodes. Confidence is the "
        "probability of the predicted class among those of the task."
    )
    rows = [
        (f"{bin_.low:.2f} to {bin_.high:.2f}", str(bin_.predictions), number(bin_.confidence), number(bin_.accuracy))
        for bin_ in found.bins
        if bin_.predictions
    ]
    return Section(
        "Calibration",
        [
            Prose(told),
            Pictures(
                [
                    (
                        charts.reliability(found),
                        "Below the diagonal the learner is too sure of itself, above it not sure enough.",
                    )
                ]
            ),
            Folded("The bins", [Table(("confidence", "queries", "mean confidence", "accuracy"), rows)]),
        ],
    )


def _errors(one: Measured, found: Values, name: str) -> Section:
    with np.errstate(invalid="ignore"):  # a learner that diverged predicts what is no number
        apart = found.told - found.truth
    rows = [*_error_rows(apart), *_score_rows(found, name)]
    drawn = [
        (charts.predicted(found.truth, found.told), "On the diagonal a prediction is right."),
        (
            charts.histogram(apart, "error (predicted - true)", "queries", zero=True),
            "The errors of all queries; the ends hold what lies beyond.",
        ),
        (charts.histogram(found.by_episode, f"{name} of an episode", "episodes"), "How tasks differ."),
    ]
    told = f"{one.episodes} episodes of {one.split}, {len(apart)} values, in their own units."
    return Section("Errors", [Prose(told), Pictures(drawn), Table(("what", "how much"), rows)])


def _error_rows(apart: NDArray[np.float64]) -> list[tuple[str, str]]:
    known = apart[np.isfinite(apart)]
    rows = [("predictions that are no number", str(len(apart) - len(known)))] if len(known) < len(apart) else []
    if not len(known):
        return rows
    with np.errstate(over="ignore"):
        square = float(np.sqrt(np.square(known).mean()))
    return [
        *rows,
        ("mean error (predicted - true)", number(float(known.mean()))),
        ("mean absolute error", number(float(np.abs(known).mean()))),
        ("root of the mean squared error", number(square)),
        ("absolute error of 9 in 10 queries at most", number(float(np.quantile(np.abs(known), 0.9)))),
    ]


def _score_rows(found: Values, name: str) -> list[tuple[str, str]]:
    low, middle, high = np.quantile(found.by_episode, [0, 0.5, 1]).tolist()
    return [
        (f"{name} of an episode: median", number(middle)),
        (f"{name} of an episode: lowest and highest", f"{number(low)} and {number(high)}"),
    ]


def _coverage(one: Measured, found: Values) -> Section:
    if not found.coverage:
        return Section(
            "Calibration",
            [
                Prose(
                    "The learner predicts values without saying how sure it is, so there is no interval to be checked."
                )
            ],
        )
    rows = [(f"{level.nominal:.0%}", f"{level.observed:.1%}") for level in found.coverage]
    told = "The share of true values within the learner's own central intervals; it should be that of the interval."
    return Section(
        "Calibration",
        [
            Prose(told),
            Pictures([(charts.covered(found.coverage), f"{len(found.truth)} values of {one.episodes} episodes.")]),
            Table(("interval", "true values inside"), rows),
        ],
    )


def _fit(place: int, found: FunctionFit) -> tuple[Markup, str]:
    error = "" if found.y is None else f", mse {np.mean((found.after - found.y) ** 2):.4f}"
    told = f"meta-test, task {place}{error}"
    return charts.fit(found, told), told


def _part_table(judged: Judged, by: By) -> Table:
    found = judged.parts(by)
    shown = found[:WORST_GROUPS] if by == "group" else found
    beside = [name for name in judged.baselines if f"{judged.quality}_{name}" in shown[0].scores]
    rows = [
        (
            part.name,
            interval(part.scores[judged.quality]),
            *(interval(part.scores[f"{judged.quality}_{name}"]) for name in beside),
        )
        for part in shown
    ]
    caption = f"The worst of {len(found)} groups" if len(shown) < len(found) else ""
    return Table((HEADINGS[by], f"{judged.split} {judged.quality}", *map(title_of, beside)), rows, caption)
