"""What MLflow tells people of a run, a search and a model: in words, with its data, in the view for training."""

import getpass
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaray.data.draws import SPLITS
from metaray.data.source import Source
from metaray.errors import InputError, redacted
from metaray.experiment.experiment import Experiment
from metaray.records.result import Result
from metaray.tracking.mlflow_run import MlflowRun, find_experiment
from metaray.tracking.server import MlflowServer

NOTE = "mlflow.note.content"
DIGEST = 32
"""Characters of a fingerprint that MLflow keeps of a data set."""


def source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags for the source of a run, under the names that MLflow shows in its own columns.

    Args:
        tags: Tags of the run: `command`, `git.commit`.
    """
    found = {
        "mlflow.user": _user(),
        "mlflow.source.name": _source_name(tags.get("command", "")),
        "mlflow.source.type": "JOB" if os.environ.get("RAY_JOB_SUBMISSION_ID") else "LOCAL",
        "mlflow.source.git.commit": tags.get("git.commit", ""),
    }
    return {key: value for key, value in found.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def _source_name(command: str) -> str:
    """The recipe of a command, or what was called."""
    words = shlex.split(command)
    named = [word for word in words[1:] if word.endswith(".json") or ".py" in word]
    return named[0] if named else (words[0] if words else Path(sys.argv[0]).name)


def open_in_training_view(server: MlflowServer, experiment: Experiment) -> None:
    """Show the experiment in MLflow's view for model training, with its score as the metric."""
    found = find_experiment(server, experiment.name)
    if found is None:
        return
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": f"test/{experiment.quality}",
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(experiment.source.task.score.higher_is_better).lower(),
    }
    have = server.client.get_experiment(found).tags
    for key, value in tags.items():
        if key not in have:  # what somebody chose stays
            server.client.set_experiment_tag(found, key, value)


def log_data(run: MlflowRun, experiment: Experiment, fingerprint: str) -> None:
    """Log the source of a run as a data set of MLflow's.

    Args:
        run: The run in MLflow.
        experiment: Experiment whose source is logged; the data themselves may be elsewhere by now.
        fingerprint: Fingerprint of the source.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = experiment.source
    tree = source.model_dump(mode="json")
    schema, profile = _seen(source)
    dataset = Dataset(
        name=Path(str(tree.get("path", ""))).stem or str(tree.get("family", source.kind)),
        digest=fingerprint[:DIGEST],
        source_type=source.kind,
        source=redacted(json.dumps(tree)),
        schema=schema,
        profile=json.dumps({"fingerprint": fingerprint} | profile),
    )
    tags = [InputTag("mlflow.data.context", ", ".join(SPLITS))]
    run.server.client.log_inputs(run.id, [DatasetInput(dataset, tags)])


def _seen(source: Source) -> tuple[str | None, dict[str, int]]:
    """The shapes of a source's examples, as JSON, and how many classes each part has; neither where it is not there."""
    try:
        schema = json.dumps({"inputs": list(source.feature_shape), "targets": source.task.target_size_told})
        if not source.num_classes("meta-train"):
            return schema, {}
        return schema, {f"classes of {split}": source.num_classes(split) for split in SPLITS}
    except InputError:
        return None, {}


def run_note(experiment: Experiment, result: Result | None, run: MlflowRun, command: str) -> str:
    """The description of a run, in Markdown.

    Args:
        experiment: Experiment that the run trains.
        result: Result of the run; None while it is unfinished.
        run: The MLflow run, which holds the plot.
        command: Command that started the run.
    """
    lines = [f"**{_what(experiment)}**, meta-trained for {experiment.num_steps} steps.", ""]
    if result is not None:
        lines += [*judged(result), "", _curve_of(run), ""]
    return "\n".join([*lines, f"Made by `{command}`." if command else ""]).strip()


def search_note(experiment: Experiment, result: Result, run: MlflowRun, *, searched: str, found: str) -> str:
    """The description of a search, in Markdown.

    Args:
        experiment: Experiment that the winner trained.
        result: Result of the winner.
        run: MLflow run of the search, which holds the plot.
        searched: Description of what was searched, and how.
        found: The winner and its settings.
    """
    lines = [f"**{_what(experiment)}**: {searched}.", "", f"- winner: {found}", *judged(result), ""]
    return "\n".join([*lines, f"![trials on meta-val](get-artifact?path=curves.png&run_uuid={run.id})"])


def version_note(experiment: Experiment, judged: Sequence[str], run: MlflowRun, uri: str) -> str:
    """The description of a registered version, in Markdown: what it does, its scores, and how to use it.

    Args:
        experiment: Experiment that trained the learner, or on which it was evaluated.
        judged: Lines about its scores and baselines.
        run: The MLflow run, which holds the plot.
        uri: URI of the version, `models:/NAME/VERSION`.
    """
    does = experiment.source.task.verb
    lines = [
        f"**{_what(experiment)}.** It {does} that it has never seen, from a few examples of each.",
        "",
        *judged,
        "",
        "```python",
        "import metaray",
        f'task = metaray.load("{uri}").adapt(x, y)  # a few known examples',
        "task.predict(x_new)",
        "```",
        "",
        f'Without metaray in the code: `mlflow.pyfunc.load_model("{uri}")`.',
        "",
        _curve_of(run),
    ]
    return "\n".join(lines)


def _curve_of(run: MlflowRun) -> str:
    return f"![learning curve](get-artifact?path=learning_curve.png&run_uuid={run.id})"


def _what(experiment: Experiment) -> str:
    kind = type(experiment.algorithm).__name__
    return f"{kind} on {experiment.source.kind} with {experiment.model.kind}, {experiment.protocol}"


def judged(result: Result) -> list[str]:
    """The scores of a run's learner and of its baselines, as a list in Markdown."""
    quality = result.quality
    lines = [
        f"- meta-test {quality}: **{result.meta_test}**, of the parameters after step {result.best_step}, which "
        f"meta-val chose ({result.meta_val})",
        f"- judged: {result.protocol}",
    ]
    if result.before_adaptation is not None:
        lines.append(f"- before adaptation: {result.before_adaptation}")
    lines.append(f"- before training: {result.before_training}")
    lines += [f"- {name}: {told}" for name, told in result.scores_told]
    return lines + [f"- {name}, which needs no training: {told}" for name, told in result.rivals]
