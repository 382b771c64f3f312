"""Printing results, as lines that a person and a script can read, or as JSON."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaray.api.compare import Comparison
    from metaray.api.evaluate import ModelScore
    from metaray.api.search_end import SearchReport
    from metaray.api.upload import Unfinished
    from metaray.tracking.report import Report


def report(report: "Report", *, as_json: bool) -> None:
    """How a run ended."""
    print(json.dumps(report.tree(), indent=2) if as_json else report)


def search(report: "SearchReport", *, apply: Path | None, as_json: bool) -> None:
    """How a search ended: its trials, and its winner as `train` shows a run."""
    from metaray.displays.trial_table import print_trials
    from metaray.displays.trials_display import settings_text
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
            "tracking_run": report.tracked.id,
        }
        tree |= {"winner": report.winner.name, "settings": dict(report.winner.settings), "objective": objective.name}
        tree |= {"value": best.value, "half_width": best.half_width, "episodes": seen, "episodes_of_all_whole": whole}
        tree |= {"trials": rows, "run": report.report.tree()}
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
    print(report.report)
    print(f"search: {report.name} (MLflow {report.tracked.id} at {report.tracked.server.shown})")
    print(f"files: {redacted(report.storage)}: trials.json, trials.parquet, winner.json, figures/")
    if apply is not None:
        found = where_found(report.experiment.model_dump(mode="json"))
        print(f"applied: {apply}; `{found}{shlex.join(['metaray', 'train', str(apply)])}` trains it")


def unfinished(run: "Unfinished", *, as_json: bool) -> None:
    """A run whose metrics were uploaded, and how it goes on."""
    from metaray.errors import redacted

    if as_json:
        tree: dict[str, Any] = {"finished": False, "run": run.run.name}
        tree |= {"tracking_uri": run.tracked.server.shown, "tracking_run": run.tracked.id}
        tree |= {"storage": redacted(run.storage), "step": run.step, "num_steps": run.num_steps}
        print(json.dumps(tree | {"notes": list(run.notes)}, indent=2))
        return
    print(f"run: {run.run.name} (MLflow {run.tracked.id} at {run.tracked.server.shown})")
    print(
        f"unfinished: its newest checkpoint is that of step {run.step} of {run.num_steps}; metrics so far are uploaded"
    )
    for note in run.notes:
        print(f"note: {note}")
    print(f"go on: metaray train RECIPE --run {run.run.name} --storage {run.storage}, with its recipe and settings")


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


def compared(compared: "Comparison", *, as_json: bool) -> None:
    """Two learners on the same episodes."""
    if not as_json:
        print(compared)
        return
    tree: dict[str, Any] = {"models": compared.models, "split": compared.split, "protocols": compared.protocols}
    tree |= {"quality": compared.quality, "scores": [score._asdict() for score in compared.scores]}
    tree |= {"difference": compared.difference._asdict(), "better": compared.better, "verdict": compared.verdict}
    print(json.dumps(tree, indent=2))
