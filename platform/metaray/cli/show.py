"""Printing results, as lines that a person and a script can read, or as JSON."""

import json
import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaray.api.compare import Comparison
    from metaray.api.evaluate import ModelScore
    from metaray.api.search_end import SearchReport
    from metaray.api.upload import Unfinished
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
    from metaray.tracking.new_version import SINGLE

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


def compared(compared: "Comparison", *, as_json: bool) -> None:
    """Two learners on the same episodes."""
    if not as_json:
        print(compared)
        return
    tree: dict[str, Any] = {"models": compared.models, "split": compared.split, "protocols": compared.protocols}
    tree |= {"quality": compared.quality, "scores": [score._asdict() for score in compared.scores]}
    tree |= {"difference": compared.difference._asdict(), "better": compared.better, "verdict": compared.verdict}
    print(json.dumps(tree, indent=2))
