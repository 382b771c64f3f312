"""`metaray evaluate --stream`: lines, JSON, table, picture, MLflow; and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metaray
from metaray.algorithms import ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.models import MLP
from metaray.records.estimate import NORMAL_95, estimate
from metaray.records.over_groups import student_95
from metaray.tracking.mlflow_run import find_experiment
from metaray.tracking.server import MlflowServer

Command = Callable[..., Any]
STREAM = ("--stream", "2,4,8", "--orders", 3, "--shots", 2, "--queries", 5)


@pytest.fixture
def folder(make_experiment: Callable[..., Experiment], tmp_path: Path) -> Path:
    """A learner that was never trained."""
    experiment = make_experiment(name="streamed", algorithm=ProtoNet(), model=MLP(hidden=(2,)))
    prepared = experiment.source.preprocessing
    shape = TaskShape(prepared.feature_shape, 3, preprocessing=prepared)
    _, meta = start(experiment.algorithm, experiment.model, shape, seed=0)
    provenance = {
        "experiment": experiment.model_dump(mode="json"),
        "source_fingerprint": experiment.source.fingerprint,
    }
    learner = Learner(
        experiment.algorithm, experiment.model, meta, prepared, experiment.episodes, provenance=provenance
    )
    learner.save(tmp_path / "learner")
    return tmp_path / "learner"


def test_the_curve_everywhere(folder: Path, command: Command, database: str, tmp_path: Path) -> None:
    files = ("--table", tmp_path / "stream.csv", "--picture", tmp_path / "stream.png")
    code, out, err = command("evaluate", folder, *STREAM, "--tracking-uri", database, *files)
    assert (code, err) == (0, "")
    protocol, *lines = out.splitlines()
    assert protocol == (
        "protocol: classes arrive with 2 support examples each, the task extended as if adapted to all of them at "
        "once; judged on 5 examples a class of all that have arrived, inductive batch norm"
    )
    rows = list(csv.DictReader((tmp_path / "stream.csv").read_text().splitlines()))
    assert [(row["order"], row["classes"]) for row in rows] == [(f"{i}", n) for i in range(3) for n in ("2", "4", "8")]
    server = MlflowServer.of(database)
    experiment_id = find_experiment(server, "streamed")
    (run,) = server.client.search_runs([experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["orders"] == "3"
    assert run.data.tags["stream.model"] == str(folder) and "git.commit" in run.data.tags
    logged = {m.step: m.value for m in server.client.get_metric_history(run.info.run_id, "stream/accuracy")}
    beside = server.client.get_metric_history(run.info.run_id, "stream/accuracy_class_means")
    assert [m.step for m in beside] == [2, 4, 8]
    for count, line in zip((2, 4, 8), lines, strict=True):
        score = estimate([float(row["accuracy"]) for row in rows if row["classes"] == str(count)])
        assert logged[count] == score.mean
        half_width = score.half_width * student_95(2) / NORMAL_95
        start_of_line = f"meta-test accuracy after {count} classes: {score.mean:.4f} +- {half_width:.4f}"
        assert line.startswith(f"{start_of_line} (3 orders); class means ")
    names = [file.path for file in server.client.list_artifacts(run.info.run_id)]
    assert sorted(names) == ["stream.json", "stream.png"] and (tmp_path / "stream.png").stat().st_size > 5000

    code, text, _ = command("evaluate", folder, *STREAM, "--tracker", "none", "--json", "--how", "continue")
    tree = json.loads(text)
    assert code == 0 and tree["classes"] == [2, 4, 8] and len(tree["orders"]) == 3
    assert "extended by one class after the other" in tree["protocol"]
    assert tree["accuracy"][0]["mean"] == logged[2], "batch norm has the statistics of the first two classes in both"
    assert len(server.client.search_runs([experiment_id])) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--stream", "2,4,99"), "99"),
        (("--stream", "4,2"), "ascending numbers of classes, from 2 on, as in 10,50,100 (got [4, 2])"),
        (("--stream", "1,5"), "from 2 on"),
        (("--stream", "two"), "numbers of classes, as in 10,50,100 (got 'two')"),
        (("--stream", "2,4", "--how", "go"), "together or continue (got 'go')"),
        (("--stream", "2,4", "--episodes", "10"), "--episodes is of episodes, not of a stream"),
        (("--stream", "2,4", "--workers", "2"), "--workers is of episodes, not of a stream"),
        (("--orders", "3"), "--orders is of a stream: give --stream, too"),
        (("--stream", "2,4", "--shots", "12"), "12"),
    ],
)
def test_what_is_refused(folder: Path, command: Command, words: tuple[str, ...], told: str) -> None:
    code, out, err = command("evaluate", folder, *words, "--tracker" if "--stream" in words else "--part", "none")
    assert (code, out) == (2, "") and told in err, err


def test_from_python(folder: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    curve = metaray.stream(
        folder, [2, 3], orders=1, shots=1, tracker="none", progress=lambda *words: heard.append(words)
    )
    assert heard == [
        ("order 1 of 1", 2, 3),
        ("order 1 of 1", 3, 3),
        ("order 1 of 1 by class_means", 2, 3),
        ("order 1 of 1 by class_means", 3, 3),
    ]
    assert str(curve).splitlines()[1].startswith("meta-test accuracy after 2 classes: ")
    assert "(1 order, which has no interval); class means" in str(curve)
    assert {key for key, _, _ in curve.metrics} == {"stream/accuracy", "stream/accuracy_class_means"}
    with pytest.raises(InputError, match="orders: at least 1"):
        metaray.stream(folder, [2, 3], orders=0)
