"""The facts of a run, from its folder; what that does not hold is found out anew, or said to be missing."""

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.imports import where_found
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.records.checkpoint_files import newest_progress
from metaray.records.journal import JournalReader, Metric
from metaray.records.overview import Overview, look
from metaray.records.run import LEARNER, Run, RunRecord
from metaray.records.storage import Storage
from metaray.reports.facts import Measured, Missing, RunFacts
from metaray.reports.settings import described
from metaray.tasks.score import SCORES, Score

T = TypeVar("T")

Measure = Callable[[Learner, Experiment], Measured]
"""Judges a learner anew; see `metaray.reports.measuring`."""

MEASURED = ("inner_steps", "shots", "classes", "calibration", "values", "examples")
"""What only judging anew tells."""


def facts_of_run(
    storage: Storage, name: str, *, report: str, measure: Measure | None, trust: Sequence[str] = ()
) -> RunFacts:
    """All that there is to tell of a run, also of one that goes on, failed, is damaged, or is of an older version.

    Args:
        storage: Storage of the run alone.
        name: Name of the run, as the user gave it.
        report: The command that makes the report again.
        measure: Finds out what the folder does not hold; None leaves that out.
        trust: Packages besides metaray whose code the run may name.
    """
    run, seen, notes = Run(name.rpartition("/")[2], storage), look(storage, name), list[str]()
    record = _read(lambda: run.record if run.is_begun else None, notes)
    tree: Mapping[str, Any] = record.experiment if record else {}
    experiment = _read(lambda: run.experiment(trust), notes) if record else None
    result = _read(lambda: run.result if run.is_finished else None, notes)
    judged = _read(lambda: run.judged, notes) if result is not None else None
    reader = JournalReader(storage)
    metrics = reader.read()
    notes += reader.damage()
    missing, learner, measured = dict[str, Missing](), None, None
    again = _again(record, tree)
    if result is None:
        missing |= dict.fromkeys(("scores", *MEASURED), _unfinished(seen, again))
    elif not storage.names(LEARNER):
        missing |= dict.fromkeys(MEASURED, Missing("The run's folder holds no learner any more.", again))
    else:
        learner, measured, found = _measured(run, experiment, measure, report, trust)
        missing |= found
        tree = tree or (_tree_of(learner) if learner else {})
    missing |= _unrecorded(run, metrics, again, has_judged=judged is not None, finished=result is not None)
    return RunFacts(
        name=name,
        kind="run",
        state=_state(seen),
        tree=tree,
        score=score_of(experiment, result.quality if result else None, metrics),
        protocol=result.protocol if result else (experiment.protocol if experiment else ""),
        data=data_facts(tree, experiment, record.source_fingerprint if record else ""),
        result=result,
        judged=judged,
        metrics=metrics,
        origin=record.tags if record else {},
        environment=newest_progress(storage).environment | _profiled(run),
        parameters=None if learner is None else sum(tensor.numel() for tensor in learner.meta.values()),
        measured=measured,
        missing=missing,
        again=again,
        report=report,
        notes=notes,
    )


def data_facts(tree: Mapping[str, Any], experiment: Experiment | None, fingerprint: str) -> list[tuple[str, str]]:
    """What is known of the data: what they are, how many classes, and their digest.

    Args:
        tree: Experiment of the run or learner, as JSON types.
        experiment: The same, where it can be read here.
        fingerprint: Fingerprint of its source; empty where nobody wrote it down.
    """
    facts = [("source", described(tree.get("source", "")))]
    if fingerprint:
        facts.append(("fingerprint", f"SHA-256 {fingerprint}"))
    if experiment is None:
        return facts
    try:
        source = experiment.source
        counts = {split: source.num_classes(split) for split in ("meta-train", "meta-val", "meta-test")}
        shape = " x ".join("any" if side is None else str(side) for side in source.feature_shape)
    except (InputError, OSError):
        return [*facts, ("here", "the data are not on this machine")]
    facts.append(("example", shape))
    if any(counts.values()):
        facts.append(("classes", ", ".join(f"{count} of {split}" for split, count in counts.items())))
    return facts


def score_of(experiment: Experiment | None, quality: str | None, metrics: Sequence[Metric]) -> Score:
    """What decides: as the result says, or the experiment, or the metrics; accuracy where nobody does."""
    measured = {metric.key for metric in metrics}
    named = next((name for name in SCORES if {f"val/{name}", f"train/{name}"} & measured), None)
    known = quality or (experiment.quality if experiment else named)
    return SCORES.get(known or "", SCORES["accuracy"])


def not_measured(error: InputError, report: str) -> dict[str, Missing]:
    """What cannot be told because judging anew was refused."""
    return dict.fromkeys(MEASURED, Missing(f"Judging the learner again is refused: {error}.", report))


def left_out(report: str) -> dict[str, Missing]:
    """What cannot be told because nobody wanted it judged."""
    asked = report.replace(" --episodes 0", "")
    return dict.fromkeys(MEASURED, Missing("The report was asked for without judging the learner again.", asked))


def _measured(
    run: Run, experiment: Experiment | None, measure: Measure | None, report: str, trust: Sequence[str]
) -> tuple[Learner | None, Measured | None, dict[str, Missing]]:
    try:
        with tempfile.TemporaryDirectory() as scratch:
            learner = load_learner(run.storage.download(LEARNER, Path(scratch) / LEARNER), trust=trust)
    except InputError as error:
        return None, None, not_measured(error, report)
    if measure is None:
        return learner, None, left_out(report)
    try:
        if not run.is_begun:  # its record is lost; the learner has a copy of what it says
            where = f"experiment of the learner of {run.name}"
            experiment = Experiment.parse(_tree_of(learner), where=where, context={"trust": tuple(trust)})
        else:
            experiment = experiment or run.experiment(trust)  # which failed before, and says why
            run.require_data(experiment)
        return learner, measure(learner, experiment), {}
    except InputError as error:
        return learner, None, not_measured(error, report)


def _tree_of(learner: Learner) -> Mapping[str, Any]:
    """The experiment that a learner says it comes from; empty where it does not say."""
    return dict(learner.provenance.get("experiment") or {})


def _unrecorded(
    run: Run, metrics: Sequence[Metric], again: str, *, has_judged: bool, finished: bool
) -> dict[str, Missing]:
    found = {}
    if not metrics:
        found["curves"] = Missing("Nothing was measured yet, or the run's journal is lost.", again)
    if not _profiled(run):
        found["memory"] = Missing("How much memory training took was not recorded.", _profile(again, run.name))
    if finished and not has_judged:
        found["judged"] = Missing("How each meta-test episode went was not kept when the run was made.", again)
    return found


def _profiled(run: Run) -> dict[str, str]:
    """The peak memory that a profile of the run's steps has measured."""
    text = run.profile or ""
    line = next((line for line in text.splitlines() if "peak memory" in line), "")
    return {"profile": line.strip()} if line else {}


def _profile(again: str, name: str) -> str:
    """The command that trained a run, to train another one with a profile; empty where it is no such command."""
    if " train " not in again:
        return ""
    words = [word for word in shlex.split(again) if word != "--promote"]
    if "--run" in words[:-1]:
        words[words.index("--run") + 1] = f"{name}-profiled"
    return shlex.join([*words, "--profile", "--no-register"])


def _read(read: Callable[[], T | None], notes: list[str]) -> T | None:
    """What can be read; what cannot be is a note."""
    try:
        return read()
    except InputError as error:
        notes.append(str(error))
        return None


def _unfinished(seen: Overview, again: str) -> Missing:
    if seen.holder:
        return Missing(f"The run goes on just now: {seen.holder}. Ask again when it has ended.")
    if seen.state == "failed":
        return Missing("The run failed before it had a result; the same command tries again.", again)
    return Missing("The run has no result yet; the same command goes on with it.", again)


def _again(record: RunRecord | None, tree: Mapping[str, Any]) -> str:
    command = record.tags.get("command", "") if record else ""
    return f"{where_found(tree)}{command}" if command.startswith("metaray ") else f"python {command}" if command else ""


def _state(seen: Overview) -> str:
    far = f"{seen.done} of {'?' if seen.planned is None else seen.planned} steps"
    words = {"unfinished": f"unfinished, {far}", "running": f"running, {far}", "failed": f"failed after {far}"}
    told = words.get(seen.state, seen.state)
    return f"{told}: {seen.why}" if seen.why else told
