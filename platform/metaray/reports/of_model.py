"""The facts of a learner of the registry, of an MLflow run or of a folder: from what it holds and what MLflow kept."""

from collections.abc import Mapping
from typing import Any

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.records.history import History
from metaray.reports.facts import Missing, RunFacts, Scored
from metaray.reports.of_run import Measure, data_facts, left_out, not_measured, score_of
from metaray.tasks.score import SCORES


def facts_of_model(
    name: str,
    learner: Learner,
    history: History,
    *,
    report: str,
    experiment: Experiment | None,
    refused: InputError | None,
    measure: Measure | None,
    scored: Scored | None,
) -> RunFacts:
    """All that there is to tell of a learner.

    Args:
        name: Name of the learner, as the user gave it.
        learner: The learner, loaded.
        history: History of the run that it comes from.
        report: The command that makes the report again.
        experiment: Experiment that it comes from, on which it can be judged; None where it cannot be.
        refused: Why it cannot be judged.
        measure: Finds out what nobody has written down; None leaves that out.
        scored: How well it does, where the history has no result.
    """
    origin = learner.provenance
    tree: Mapping[str, Any] = origin.get("experiment") or _parts(learner)
    missing, measured = dict[str, Missing](), None
    if refused is not None:
        missing |= not_measured(refused, report)
    elif measure is None or experiment is None:
        missing |= left_out(report)
    else:
        try:
            measured = measure(learner, experiment)
        except InputError as error:
            missing |= not_measured(error, report)
    if not history.metrics:
        missing["curves"] = Missing("The learner itself keeps no curves; the run that it comes from is not known here.")
    if history.result is None and scored is None:
        missing["scores"] = Missing("The learner does not say how well it does.", f"metaray evaluate {name}")
    missing["memory"] = Missing("How much memory training took was not recorded.")
    quality = history.result.quality if history.result else learner.task.score.name
    return RunFacts(
        name=name,
        kind="model",
        state=f"learner after step {learner.step}" + (f", {history.place}" if history.place else ""),
        tree=tree,
        score=SCORES.get(quality) or score_of(experiment, quality, history.metrics),
        protocol=str(origin.get("protocol", "")),
        data=data_facts(tree, experiment, str(origin.get("source_fingerprint") or "")),
        result=history.result,
        scored=scored,
        metrics=history.metrics,
        origin=history.tags,
        parameters=sum(tensor.numel() for tensor in learner.meta.values()),
        measured=measured,
        missing=missing,
        again=history.tags.get("command", ""),
        report=report,
        notes=history.notes,
    )


def _parts(learner: Learner) -> dict[str, Any]:
    """What a learner of a network that was trained elsewhere says of itself, as an experiment says it."""
    algorithm, model = learner.algorithm, learner.model
    return {
        "algorithm": {"kind": algorithm.kind, **algorithm.model_dump(mode="json")},
        "model": {"kind": model.kind, **model.model_dump(mode="json")},
        "episodes": learner.spec.model_dump(mode="json"),
    }
