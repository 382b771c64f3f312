"""A stream of classes in MLflow: a run of its own, whose metrics have the number of classes as their step."""

import tempfile
import time
from pathlib import Path

from metaray.plots.stream import draw_stream
from metaray.records.provenance import provenance
from metaray.records.stream import StreamCurve
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.server import MlflowServer

STREAM_TAG = "stream.model"
RESULT, PICTURE = "stream.json", "stream.png"


def log_stream(server: MlflowServer, experiment_name: str, curve: StreamCurve, params: dict[str, str]) -> MlflowRun:
    """Write a curve to a new run of an MLflow experiment: metrics, result file and picture.

    Args:
        server: Server to write to.
        experiment_name: Name of the MLflow experiment that the learner's own run is in.
        curve: Curve to write.
        params: How it was made.

    Raises:
        RunFailed: If MLflow does not answer, or refuses.
        InputError: If the experiment was deleted.
    """
    server.prepare()
    tags = provenance() | {STREAM_TAG: curve.model, "protocol": curve.protocol}
    with server.asking("the stream could not be brought to MLflow"), tempfile.TemporaryDirectory() as scratch:
        run = MlflowRun.create(server, experiment_name, f"stream of {curve.model}", params, tags)
        run.log_metrics(curve.logged(int(time.time() * 1000)))
        run.log_text(curve.json(), RESULT)
        draw_stream({"learner": curve}, Path(scratch) / PICTURE, curve.model)
        run.log_file(Path(scratch) / PICTURE)
        run.finish()
    return run
