"""A learner through MLflow and back, as a user meets it: in a database, behind a server, and over REST."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.records.journal import Metric
from metaray.serving.columns import inputs_of, outputs_of
from metaray.serving.loading import load_learner
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.tracking.artifact import download, register
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.registry import champion, list_models, set_alias
from metaray.tracking.server import MlflowServer
from tests.patience import PATIENT_S


def add(server: MlflowServer, learner: Learner, folder: Path) -> str:
    """Register `learner` as models:/served@champion and return its run."""
    run = MlflowRun.create(server, "serving", "run", {"a": "b"}, {})
    learner.save(folder)
    example = example_input(learner)
    version = register(
        server,
        run.id,
        name="served",
        learner_folder=folder,
        inputs=inputs_of(learner),
        outputs=outputs_of(learner),
        input_example=example,
        tags={"algorithm": learner.algorithm.kind},
    )
    set_alias(server, "served", version)
    run.finish()
    return run.id


@contextmanager
def running(command: list[str], folder: Path, port: int, health: str) -> Iterator[str]:
    """Start a server and wait until `health` answers."""
    # MLflow starts uvicorn by name, which is found only where the environment of this interpreter is on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with open(folder / f"{port}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PATH": path},
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENT_S
        while True:
            try:
                urllib.request.urlopen(address + health, timeout=PATIENT_S).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / f"{port}.log").read_text()) from error
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(PATIENT_S)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_mlflow_loads_a_registered_learner(maml: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MlflowServer.of(f"sqlite:///{tmp_path}/mlflow.db")
    server.prepare()
    add(server, maml, tmp_path / "saved")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    example = example_input(maml)
    expected = PyfuncLearner(maml).predict(example)

    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model("models:/served@champion")
    pd.testing.assert_frame_equal(model.predict(example), expected)
    without_labels = example.copy()
    without_labels.loc[len(example) - 1, "label"] = None
    pd.testing.assert_frame_equal(model.predict(without_labels), expected)
    with pytest.raises(InputError, match="no support rows"):
        model.predict(example[example["role"] == "query"])

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served@champion"]
    with running([*command, "-p", str(port), "--env-manager", "local"], tmp_path, port, "/ping") as address:
        rows = [[role, label, base64.b64encode(image).decode()] for role, label, image in example.to_numpy()]
        body = json.dumps({"dataframe_split": {"columns": list(example.columns), "data": rows}}).encode()
        request = urllib.request.Request(address + "/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENT_S) as answer:
            prediction, _ = json.load(answer)["predictions"]
    assert prediction["label"] == expected["label"].iloc[0]
    assert prediction["probability"] == pytest.approx(expected["probability"].iloc[0])


@pytest.mark.parametrize("name", ["curve", "field"])
def test_mlflow_loads_a_registered_learner_of_values(
    name: str, request: pytest.FixtureRequest, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner: Learner = request.getfixturevalue(name)
    add(MlflowServer(database), learner, tmp_path / "saved")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    example = example_input(learner)
    expected = PyfuncLearner(learner).predict(example)

    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model("models:/served@champion")
    signature = model.metadata.signature
    assert signature.inputs.input_names() == [column.name for column in inputs_of(learner)]
    assert signature.outputs.input_names() == [column.name for column in outputs_of(learner)]
    pd.testing.assert_frame_equal(model.predict(example), expected)
    with pytest.raises(InputError, match="no support rows"):
        model.predict(example[example["role"] == "query"])


@pytest.mark.slow
def test_a_tracking_server(proto_net: Learner, tmp_path: Path) -> None:
    port = free_port()
    database = f"sqlite:///{tmp_path}/server.db"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, tmp_path, port, "/health") as uri:
        server = MlflowServer(uri)
        server.prepare()
        run_id = add(server, proto_net, tmp_path / "saved")
        run = MlflowRun(server, run_id)
        run.log_metrics([Metric("train/loss", float(step), step, step) for step in range(1500)])
        run.log_metrics([Metric("train/loss", float("nan"), 1500, 1500)])
        run.log_text("hello", "a.txt")
        assert [model.name for model in list_models(server)] == ["served"]
        found = champion(server, "served")
        assert found is not None
        assert found.tags == {"algorithm": "protonet"}
        for number, form in enumerate(("models:/served@champion", f"runs:/{run_id}/learner")):
            folder = download(server, form, tmp_path / f"download {number}")
            assert load_learner(folder).algorithm == proto_net.algorithm
        with pytest.raises(InputError, match="Did you mean 'served'"):
            download(server, "models:/serve/1", tmp_path / "wrong")
