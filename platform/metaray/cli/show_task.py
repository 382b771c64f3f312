"""Printing what a task predicts: labels of images or of rows, or numbers, as a table or as JSON."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metaray.displays.table import print_table

if TYPE_CHECKING:
    from metaray.learners.learner import AdaptedTask, Learner
    from metaray.serving.folders import Labelled
    from metaray.serving.tables import Points

LONGEST_CELL = 60
"""Letters of a cell that a table shows."""


def doubting(task: "AdaptedTask") -> "AdaptedTask":
    """The same task, which says its doubt in a line."""
    return replace(task, on_doubt=lambda text: print(f"warning: {text}", file=sys.stderr))


def predictions(
    task: "AdaptedTask",
    query: "Labelled | list[Path]",
    *,
    support: "Labelled | None" = None,
    picture: Path | None = None,
    as_json: bool,
) -> None:
    """Labels of query images, and how many are right where the truth is known; a `picture` shows the support, too."""
    paths, truth = (query, None) if isinstance(query, list) else query
    found = _judged(task, task.predict_proba(paths), truth)
    if picture is not None and support is not None:
        _draw(task, support, paths, found.labels, found.correct, picture)
    names = [path.name if truth is None else f"{path.parent.name}/{path.name}" for path in paths]
    shown = [[name] for name in names]
    _show(task, found, [{"image": str(path)} for path in paths], ["image"], shown, truth, as_json=as_json)
    if picture is not None and not as_json:
        print(f"picture: {picture}")


def rows(task: "AdaptedTask", query: "Points", *, picture: Path | None = None, as_json: bool) -> None:
    """Predictions for the rows of a table: labels, or values."""
    if not task.classes:
        values(task, query, picture=picture, as_json=as_json)
        return
    found = _judged(task, task.predict_proba(query.x), query.y)
    names = list(query.names[: len(task.learner.preprocessing.columns)])
    trees: list[dict[str, Any]] = [dict(zip(names, cells, strict=True)) for cells in query.cells]
    shown = [[_short(cell) for cell in cells] for cells in query.cells]
    _show(task, found, trees, names, shown, query.y, as_json=as_json)


class _Judged(NamedTuple):
    """Predicted labels.

    Attributes:
        labels: The most probable ones.
        probabilities: [n, classes].
        correct: Whether each is right; None for those of a class that the support lacks, or where nobody knows.
    """

    labels: list[str]
    probabilities: Any
    correct: list[bool | None] | None


def _judged(task: "AdaptedTask", probabilities: Any, truth: list[str] | None) -> _Judged:
    labels = [str(task.classes[row.argmax()]) for row in probabilities]
    # A class that the support lacks cannot be found: such a query is neither right nor wrong.
    known = set(task.classes)
    correct = (
        None if truth is None else [label == t if t in known else None for label, t in zip(labels, truth, strict=True)]
    )
    return _Judged(labels, probabilities, correct)


def _show(
    task: "AdaptedTask",
    found: _Judged,
    trees: list[dict[str, Any]],
    header: list[str],
    shown: list[list[str]],
    truth: list[str] | None,
    *,
    as_json: bool,
) -> None:
    """Labels as JSON, each beside what `trees` has of its query; or as a table, beside what is `shown` of it."""
    highest = [round(float(row.max()), 4) for row in found.probabilities]
    if as_json:
        for tree, label, share, row in zip(trees, found.labels, highest, found.probabilities, strict=True):
            each = {str(c): round(float(p), 4) for c, p in zip(task.classes, row, strict=True)}
            tree |= {"label": label, "probability": share, "probabilities": each}
        for tree, true in zip(trees, truth or (), strict=False):
            tree |= {"truth": true, "counted": true in set(task.classes)}
        print(json.dumps(trees, indent=2, ensure_ascii=False))
        return
    table = [(*cells, label, f"{share:.3f}") for cells, label, share in zip(shown, found.labels, highest, strict=True)]
    print_table((*header, "label", "probability"), table)
    if truth is not None and found.correct is not None:
        counted = [one for one in found.correct if one is not None]
        print(f"correct: {sum(counted)} of {len(counted)}")
        if foreign := [true for true in truth if true not in set(task.classes)]:
            print(_not_counted(foreign, [str(one) for one in task.classes]))


def _short(cell: str) -> str:
    return cell if len(cell) <= LONGEST_CELL else f"{cell[: LONGEST_CELL - 3]}..."


def _not_counted(truth: list[str], known: list[str]) -> str:
    """What is said of queries of classes that the support lacks."""
    classes = sorted(set(truth))
    folded = {name.casefold().strip(): name for name in known}
    alike = {name: folded[name.casefold().strip()] for name in classes if name.casefold().strip() in folded}
    listed = ", ".join(repr(name) + (f" (it has {alike[name]!r})" if name in alike else "") for name in classes)
    queries = f"{len(truth)} {'query' if len(truth) == 1 else 'queries'}"
    of = "a class" if len(classes) == 1 else f"{len(classes)} classes"
    return f"not counted: {queries} of {of} that the support lacks: {listed}"


def values(task: "AdaptedTask", query: "Points", *, picture: Path | None = None, as_json: bool) -> None:
    """Predictions of numbers, and their score where the truth is known."""
    import numpy as np

    found = task.predict_values(query.x)
    errors = None if query.y is None else np.mean((found - query.y) ** 2, axis=1)
    rows = [[*cells, *numbers] for cells, numbers in zip(_inputs(query), found.tolist(), strict=True)]
    if as_json:
        trees: list[dict[str, Any]] = [dict(zip(query.names, row, strict=True)) for row in rows]
        if query.y is not None and errors is not None:
            for tree, target, error in zip(trees, query.y.tolist(), errors.tolist(), strict=True):
                tree |= {"target": target[0] if len(target) == 1 else target, "squared_error": error}
        print(json.dumps(trees, indent=2))
        return
    print_table(query.names, [[_told(value) for value in row] for row in rows])
    if query.y is not None:
        kind = task.learner.task
        score = kind.judged(kind.read(found).y, kind.read(query.y).y)
        print(f"{kind.score.name}: {float(score):.4f}")
    if picture is not None:
        print(f"picture: {picture}")


def _inputs(query: "Points") -> list[list[Any]]:
    """The inputs of each row, a cell a column: numbers where they are such."""
    import numpy as np

    if isinstance(query.x, np.ndarray):
        found: list[list[Any]] = query.x.reshape(len(query.x), -1).tolist()
        return found
    pairs = zip(query.x, query.cells, strict=True)
    return [list(x.values()) if isinstance(x, dict) else list(cells) for x, cells in pairs]


def _told(value: Any) -> str:
    if value is None:
        return ""
    return _short(value) if isinstance(value, str) else f"{value:.6g}"


def draw_fit(learner: "Learner", support: "Points", query: "Points", picture: Path, *, inner_steps: int | None) -> None:
    """The function that a task is, as a picture."""
    from metaray.plots.function_fits import draw_fits, fit_of

    assert support.y is not None
    fit = fit_of(learner, (support.x, support.y), query.x, query.y, inner_steps=inner_steps)
    draw_fits([fit], picture, f"{len(support.x)} support points")


def saved(task: "AdaptedTask", path: Path, *, as_json: bool) -> None:
    """Where a task was saved, and how it goes on."""
    classes = [str(one) for one in task.classes]
    if as_json:
        print(json.dumps({"task": str(path), "classes": classes}, indent=2, ensure_ascii=False))
        return
    print(f"task: {path}; `{shlex.join(['metaray', 'predict', str(path), '--query', 'FILES'])}` predicts with it")


def _draw(
    task: "AdaptedTask",
    support: "Labelled",
    query: list[Path],
    labels: list[str],
    correct: list[bool | None] | None,
    picture: Path,
) -> None:
    from metaray.plots.task_pictures import draw_task

    pixels = task.learner.compact
    title = f"{len(task.classes)} classes, {len(support.paths)} support images"
    draw_task(pixels(support.paths), support.labels, pixels(query), labels, picture, correct=correct, title=title)
