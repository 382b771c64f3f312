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
    """Log a curve to a new run of an MLflow experiment: metrics, result file and plot.

    Args:
        server: MLflow server.
        experiment_name: Name of the MLflow experiment that holds the learner's own run.
        curve: Curve to write.
        params: Parameters of the evaluation.

    Raises:
        RunFailed: If MLflow does not answer, or refuses the request.
        InputError: If the MLflow experiment was deleted.
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
