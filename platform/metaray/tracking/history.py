"""What MLflow kept of the run that a learner comes from: its tags, its curves, and its result."""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from metaray.errors import InputError, RunFailed
from metaray.records.history import History
from metaray.records.journal import Metric
from metaray.records.result import RESULT, Result
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.probes import sqlite_path
from metaray.tracking.registry import find_alias, find_version
from metaray.tracking.server import MlflowServer

REPORT, MODEL_REPORT = "report.html", "report-model.html"
"""The artifacts of a run that hold its report, and that of its learner as the registry has it."""


def history_of(server: MlflowServer, model: str, keys: Iterable[str]) -> History:
    """What MLflow knows about the run behind a model's URI.

    Args:
        server: Server that holds the run.
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN_ID/PATH`.
        keys: Names of the metrics to read at all steps.

    Raises:
        InputError: If the URI names nothing.
        TrackingAway: If MLflow does not answer.
    """
    run_id, place = _run_behind(server, model)
    if run_id is None:
        return History(place=place)
    with server.asking(f"the run {run_id} could not be read"):
        found = server.client.get_run(run_id).data
        metrics = [
            Metric(key, float(one.value), int(one.step), int(one.timestamp))
            for key in keys
            if key in found.metrics
            for one in server.client.get_metric_history(run_id, key)
        ]
        tags = {str(key): str(value) for key, value in found.tags.items()}
    result, note = _result(server, run_id)
    return History(place, run_id, tags, metrics, result, [note] if note else [])


def log_report(server: MlflowServer, run_id: str, page: Path, name: str) -> None:
    """Log a report as the artifact `name` of a run, replacing an older one.

    Raises:
        RunFailed: If the run does not exist, or MLflow does not accept the report.
    """
    require_there(server)
    run = MlflowRun(server, run_id)
    with server.asking(f"whether the run {run_id} is there could not be found out"):
        is_there = run.is_there
    if not is_there:
        raise RunFailed(f"there is no run {run_id} at {server.shown!r}: give the --tracking-uri that it was made with")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / name
        copy.write_bytes(page.read_bytes())
        run.log_file(copy)


def require_there(server: MlflowServer) -> None:
    """Check that the MLflow server or database exists; asking a missing database would create it.

    Raises:
        RunFailed: If it does not; the message says which option to give.
    """
    path = sqlite_path(server.uri)
    if path is not None and not path.is_file():
        raise RunFailed(f"there is no database at {server.shown!r}: give the --tracking-uri that it was made with")
    server.prepare()


def _run_behind(server: MlflowServer, model: str) -> tuple[str | None, str]:
    """The id of the run, and in words what stands before it."""
    if match := re.fullmatch(r"runs:/([0-9A-Za-z_-]+)/.+", model):
        return match[1], f"MLflow run {match[1]}"
    if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", model):
        version = find_alias(server, match[1], match[2])
    elif match := re.fullmatch(r"models:/([^/@]+)/([0-9]+)", model):
        version = find_version(server, match[1], int(match[2]))
    else:
        raise InputError(f"{model!r} is no model's URI")
    aliases = "".join(f", @{alias}" for alias in version.aliases)
    run = f", of MLflow run {version.run_id}" if version.run_id else ""
    return (
        version.run_id,
        f"version {version.version} of {version.name}{aliases}, registered {version.created:%Y-%m-%d}{run}",
    )


def _result(server: MlflowServer, run_id: str) -> tuple[Result | None, str]:
    """Its result, and what is wrong with it; nothing is where there is none."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        if RESULT not in [str(item.path) for item in server.client.list_artifacts(run_id)]:
            return None, ""
        with tempfile.TemporaryDirectory() as scratch:
            found = download_artifacts(run_id=run_id, artifact_path=RESULT, dst_path=scratch, tracking_uri=server.uri)
            return Result.from_json(Path(found).read_bytes(), where=f"{RESULT} of run {run_id}"), ""
    except (MlflowException, OSError, InputError) as error:
        return None, f"the result of run {run_id} could not be read: {str(error).partition(chr(10))[0]}"
