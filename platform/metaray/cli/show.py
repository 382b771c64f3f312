"""Printing results, as lines that a person and a script can read, or as JSON."""

import json
import shlex
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaray.cli.table import print_table

if TYPE_CHECKING:
    from metaray.api.evaluate import ModelScore
    from metaray.api.search_end import SearchReport
    from metaray.api.upload import Unfinished
    from metaray.learners.learner import AdaptedTask, Learner
    from metaray.serving.folders import Labelled
    from metaray.serving.tables import Points
    from metaray.tracking.run_upload import Report


def report(report: "Report", *, as_json: bool) -> None:
    """How a run ended."""
    if as_json:
        print(json.dumps(run_tree(report), indent=2))
    else:
        report_lines(report)


def run_tree(report: "Report") -> dict[str, Any]:
    """How a run ended, for JSON."""
    from metaray.errors import redacted

    version = report.version
    tree: dict[str, Any] = json.loads(report.result.to_json())
    del tree["meta_val_scores"], tree["baseline_val_scores"]  # hundreds of numbers, kept in the run's result.json
    tree |= {"run": report.run, "tracking_uri": redacted(report.tracking_uri), "tracking_run": report.tracking_run}
    tree |= {"registered": _registered(report), "champion": version is not None and "champion" in version.aliases}
    tree["decision"] = report.decision.reason if report.decision else None
    tree["single_queries"] = _single(report)
    tree["notes"] = list(report.notes)
    return tree


def _registered(report: "Report") -> str | None:
    if report.version is None:
        return None
    return f"{report.version.uri}{' (@champion)' if 'champion' in report.version.aliases else ''}"


def _single(report: "Report") -> str | None:
    from metaray.tracking.registration import SINGLE

    return None if report.version is None else report.version.tags.get(SINGLE)


def report_lines(report: "Report") -> None:
    """How a run ended, as lines that a script can read, too."""
    from metaray.errors import redacted

    result, registered = report.result, _registered(report)
    print(f"protocol: {result.protocol}")
    quality = result.quality
    print(f"meta-val {quality}: {result.meta_val}, best of the run, after step {result.best_step}")
    print(f"nearest neighbour on {result.compared}: {result.nearest_neighbor}")
    print(f"meta-test {quality} before training: {result.before_training}")
    if result.before_adaptation is not None:
        print(f"meta-test {quality} before adaptation: {result.before_adaptation}")
    print(f"meta-test {quality}: {result.meta_test}")
    print(
        f"speed: {result.episodes_per_s:.1f} episodes/s, {100 * result.wait_share:.1f}% of step time waiting for "
        f"episodes, {result.seconds:.0f} s in all"
    )
    if registered:
        print(f"registered: {registered}")
    if single := _single(report):
        print(f"one query at a time: {single}")
    if report.decision is not None:
        print(f"champion: {'yes' if report.decision.promote else 'no'}, {report.decision.reason}")
        if report.version is not None and not report.decision.promote:
            by_hand = f"metaray registry promote {report.version.name} {report.version.version}"
            print(f"    --promote, or `{by_hand}`, gives it the alias all the same")
    print(f"run: {report.run} (MLflow {report.tracking_run} at {redacted(report.tracking_uri)})")
    print(f"parameters sha256: {result.parameters_sha256}")
    for note in report.notes:
        print(f"note: {note}")


def search(report: "SearchReport", *, apply: Path | None, as_json: bool) -> None:
    """How a search ended: its trials, and its winner as `train` shows a run."""
    from metaray.cli.trial_table import print_trials
    from metaray.cli.trials import settings_text
    from metaray.errors import redacted
    from metaray.imports import where_found
    from metaray.tuning.table import as_rows

    rows, objective = as_rows(report.trials, report.search.optimises), report.search.optimises
    counts = Counter(trial.status for trial in report.trials)
    seen, whole = sum(t.own_episodes for t in report.trials), report.search.population * report.winner.num_episodes
    best = report.winner.best(objective)
    assert best is not None
    if as_json:
        tree: dict[str, Any] = {
            "search": report.name,
            "storage": redacted(report.storage),
            "tracking_run": report.tracking_run,
        }
        tree |= {"winner": report.winner.name, "settings": dict(report.winner.settings), "objective": objective.name}
        tree |= {"value": best.value, "half_width": best.half_width, "episodes": seen, "episodes_of_all_whole": whole}
        tree |= {"trials": rows, "run": run_tree(report.report)}
        print(json.dumps(tree, indent=2))
        return
    print_trials(rows, list(report.search.space), objective.name)
    for row in rows:  # not in the table, which is to fit the terminal
        if row["why"]:
            print(f"{row['name']}: {row['status']}, {row['why']}")
    listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"trials: {len(report.trials)} ({listed}), {seen} episodes of {whole} that all would see")
    print(f"winner: {report.winner.name}, {settings_text(report.winner.settings)}")
    print(f"winner meta-val {objective.name}: {best.value:.4f} +- {best.half_width:.4f} after step {best.step}")
    report_lines(report.report)
    print(f"search: {report.name} (MLflow {report.tracking_run} at {redacted(report.tracking_uri)})")
    print(f"files: {redacted(report.storage)}: trials.json, trials.parquet, winner.json, figures/")
    if apply is not None:
        found = where_found(report.experiment.model_dump(mode="json"))
        print(f"applied: {apply}; `{found}{shlex.join(['metaray', 'train', str(apply)])}` trains it")


def unfinished(run: "Unfinished", *, as_json: bool) -> None:
    """A run whose metrics were uploaded, and how it goes on."""
    from metaray.errors import redacted

    if as_json:
        print(json.dumps({"finished": False} | asdict(run) | {"tracking_uri": redacted(run.tracking_uri)}, indent=2))
        return
    print(f"run: {run.run} (MLflow {run.tracking_run} at {redacted(run.tracking_uri)})")
    print(
        f"unfinished: its newest checkpoint is that of step {run.step} of {run.num_steps}; metrics so far are uploaded"
    )
    for note in run.notes:
        print(f"note: {note}")
    print(f"go on: metaray train RECIPE --run {run.run} --storage {run.storage}, with its recipe and settings")


def judged(judged: "ModelScore", *, as_json: bool) -> None:
    """An evaluation."""
    if as_json:
        tree: dict[str, Any] = {"model": judged.model, "split": judged.split, "protocol": judged.protocol}
        tree |= {"quality": judged.quality, judged.quality: judged.score._asdict()}
        for key in ("before_adaptation", "nearest_neighbor"):
            estimate = getattr(judged, key)
            tree[key] = None if estimate is None else estimate._asdict()
        print(json.dumps(tree, indent=2))
        return
    print(f"protocol: {judged.protocol}")
    print(f"nearest neighbour on {judged.compared}: {judged.nearest_neighbor}")
    if judged.before_adaptation is not None:
        print(f"{judged.split} {judged.quality} before adaptation: {judged.before_adaptation}")
    print(f"{judged.split} {judged.quality}: {judged.score}")


def doubting(task: "AdaptedTask") -> "AdaptedTask":
    """The same task, which says its doubt in a line."""
    return replace(task, on_doubt=lambda text: print(f"warning: {text}", file=sys.stderr))


def predictions(
    task: "AdaptedTask", support: "Labelled", query: "Labelled | list[Path]", *, picture: Path | None, as_json: bool
) -> None:
    """Labels of query images, and how many are right where the truth is known."""
    paths, truth = (query, None) if isinstance(query, list) else query
    probabilities = task.predict_proba(paths)
    labels = [str(task.classes[row.argmax()]) for row in probabilities]
    # A class that the support lacks cannot be found: such a query is neither right nor wrong.
    known = set(task.classes)
    correct = (
        None if truth is None else [label == t if t in known else None for label, t in zip(labels, truth, strict=True)]
    )
    if picture is not None:
        _draw(task, support, paths, labels, correct, picture)
    rows = [
        {"image": str(path), "label": label, "probability": round(float(row.max()), 4)}
        for path, label, row in zip(paths, labels, probabilities, strict=True)
    ]
    if as_json:
        for row, found in zip(rows, probabilities, strict=True):
            row["probabilities"] = {str(c): round(float(p), 4) for c, p in zip(task.classes, found, strict=True)}
        for row, true in zip(rows, truth or (), strict=False):
            row |= {"truth": true, "counted": true in known}
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    names = [path.name if truth is None else f"{path.parent.name}/{path.name}" for path in paths]
    table = [(name, str(row["label"]), f"{row['probability']:.3f}") for name, row in zip(names, rows, strict=True)]
    print_table(("image", "label", "probability"), table)
    if truth is not None and correct is not None:
        counted = [one for one in correct if one is not None]
        print(f"correct: {sum(counted)} of {len(counted)}")
        if foreign := [true for true in truth if true not in known]:
            print(_not_counted(foreign, [str(one) for one in task.classes]))
    if picture is not None:
        print(f"picture: {picture}")


def _not_counted(truth: list[str], known: list[str]) -> str:
    """What is said of queries of classes that the support lacks."""
    classes = sorted(set(truth))
    folded = {name.casefold().strip(): name for name in known}
    alike = {name: folded[name.casefold().strip()] for name in classes if name.casefold().strip() in folded}
    listed = ", ".join(repr(name) + (f" (it has {alike[name]!r})" if name in alike else "") for name in classes)
    queries = f"{len(truth)} {'query' if len(truth) == 1 else 'queries'}"
    of = "a class" if len(classes) == 1 else f"{len(classes)} classes"
    return f"not counted: {queries} of {of} that the support lacks: {listed}"


def values(
    learner: "Learner",
    support: "Points",
    query: "Points",
    *,
    inner_steps: int | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Predictions of numbers, and the squared error where the truth is known."""
    import numpy as np

    from metaray.errors import InputError
    from metaray.plots.function_fits import draw_fits, fit_of, has_curve

    if picture is not None and not has_curve(learner.preprocessing.feature_shape, learner.target_size):
        raise InputError("--picture draws functions of one number, and images; this learner takes or gives several")
    assert support.y is not None
    found = doubting(learner.adapt(support.x, support.y, inner_steps=inner_steps)).predict_values(query.x)
    errors = None if query.y is None else np.mean((found - query.y) ** 2, axis=1)
    if picture is not None:
        fit = fit_of(learner, (support.x, support.y), query.x, query.y, inner_steps=inner_steps)
        draw_fits([fit], picture, f"{len(support.x)} support points")
    names = support.names
    rows = np.column_stack([query.x.reshape(len(query.x), -1), found]).tolist()
    if as_json:
        trees: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
        if query.y is not None and errors is not None:
            for tree, target, error in zip(trees, query.y.tolist(), errors.tolist(), strict=True):
                tree |= {"target": target[0] if len(target) == 1 else target, "squared_error": error}
        print(json.dumps(trees, indent=2))
        return
    print_table(names, [[f"{value:.6g}" for value in row] for row in rows])
    if errors is not None:
        print(f"mse: {errors.mean():.4f}")
    if picture is not None:
        print(f"picture: {picture}")


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
