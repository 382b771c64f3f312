"""`import metaray as mr`: what the command line does, from Python."""

import inspect
import json
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metaray as mr
from metaray.api.submit import words_of
from metaray.errors import InputError
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tracking.mlflow_run import MlflowRun

MakeExperiment = Callable[..., mr.Experiment]


def test_everything_offered_is_there() -> None:
    for name in mr.__all__:
        found = getattr(mr, name)
        assert found.__doc__ and found.__module__.startswith("metaray"), name
    assert set(mr.__all__) <= set(dir(mr))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mr.trian  # noqa: B018


def test_every_algorithm_model_and_source_is_offered() -> None:
    from metaray.algorithms import ALGORITHMS
    from metaray.data import SOURCES
    from metaray.models import MODELS
    from metaray.optimizers import OPTIMIZERS

    for kinds in (ALGORITHMS, SOURCES, MODELS, OPTIMIZERS):
        for kind in kinds.values():
            assert getattr(mr, kind.__name__) is kind


NAMING = ("command", "mlflow.runName", "mlflow.source.name", "mlflow.note.content", "mlflow.loggedArtifacts")
"""Tags that name a run, or how it was called."""


def undated(run: MlflowRun) -> dict[str, Any]:
    """What MLflow has of a run, but for what was timed or names the run itself."""
    found = run.server.client.get_run(run.id)
    timed = re.compile("wait|speed/|episodes_per_s|seconds")
    return {
        "params": found.data.params,
        "metrics": {key: value for key, value in found.data.metrics.items() if not timed.search(key)},
        "tags": {
            key: value
            for key, value in found.data.tags.items()
            if key
            not in ("command", "mlflow.runName", "mlflow.source.name", "mlflow.note.content", "mlflow.loggedArtifacts")
        },
        "files": sorted(item.path for item in run.server.client.list_artifacts(run.id)),
        "status": found.info.status,
        "data": [one.dataset.digest for one in found.inputs.dataset_inputs],
    }


def test_the_command_and_the_function_do_the_same(
    make_experiment: MakeExperiment, database: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    experiment = make_experiment(name="either-way")
    (tmp_path / "tiny.json").write_text(experiment.to_json())
    storage = str(tmp_path / "runs")
    places = ("--storage", storage, "--tracking-uri", database)
    ended = command("train", tmp_path / "tiny.json", "--run", "typed", *places)
    assert ended.code == 0, ended.err
    report = mr.train(experiment, run="called", storage=storage, tracking_uri=database, progress=False)
    assert f"parameters sha256: {report.result.parameters_sha256}" in ended.out
    typed = Run("typed", Storage(storage).child("typed"))
    assert report.tracked is not None and typed.tracking_run is not None
    assert undated(MlflowRun(report.tracked.server, typed.tracking_run)) == undated(report.tracked)
    shown = command(
        "train", tmp_path / "tiny.json", "--run", "called", "--storage", storage, "--tracking-uri", database
    )
    assert shown.out == f"{report}\n"


def test_a_report_shows_itself(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    report = mr.train(make_experiment(), storage=str(tmp_path), tracker="none", progress=False)
    assert str(report).startswith("protocol: 3-way 1-shot") and f"learner: {tmp_path}/{report.run.name}/learner" in str(
        report
    )
    html = report._repr_html_()
    assert "<pre>protocol: 3-way 1-shot" in html and '<img alt="" src="data:image/png;base64,' in html
    assert len(report.plot().axes) == 2
    assert json.loads(json.dumps(report.tree()))["registered"] is None
    source = make_experiment().source
    assert isinstance(source, mr.ClassStore)
    x = np.concatenate([source.examples(c)[:3, 0] for c in (20, 21, 22)])
    task = report.learner.adapt(x[::3], ["a", "b", "c"])
    assert set(task.predict(np.delete(x, np.s_[::3], axis=0))) <= {"a", "b", "c"}


def test_what_cannot_be_registered_is_refused_before_anything_starts(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    for wish in ({"register": True}, {"promote": True}):
        with pytest.raises(InputError, match="the registry is MLflow's, which is not among the trackers"):
            mr.train(make_experiment(), storage=str(tmp_path), tracker="none", progress=False, **wish)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_few_calls_lead_from_the_front_door_to_the_gradient(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    original = torch.autograd.grad

    def grad(*arguments: Any, **options: Any) -> Any:
        frames = traceback.extract_stack()
        names = [frame.name for frame in frames]
        if "_leaves" in names:  # not the checks before
            start = next(i for i, frame in enumerate(frames) if frame.filename.endswith("metaray/api/train.py"))
            seen.append([frame.name for frame in frames[start:-1]])
        return original(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    # Reptile and iMAML bring gradients of their own; ProtoNet takes no inner steps, so this is the outer gradient.
    experiment = make_experiment(algorithm=mr.ProtoNet(), num_steps=1)
    mr.train(experiment, storage=str(tmp_path), tracker="none", progress=False)
    assert seen[0] == ["train", "train", "run", "outer_loop", "total", "_leaves", "meta_gradient"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_search_from_python(make_experiment: MakeExperiment, database: str, tmp_path: Path) -> None:
    places: dict[str, Any] = {"storage": str(tmp_path / "runs"), "tracking_uri": database, "progress": False}
    space = {"algorithm.inner_lr": "choice(0.1, 0.2)"}
    report = mr.tune(make_experiment(name="sought"), space, searcher="grid", scheduler="none", run="mine", **places)
    assert [trial.settings["algorithm.inner_lr"] for trial in report.trials] == [0.1, 0.2]
    assert str(report).splitlines()[-2].startswith("search: mine (MLflow ") and "winner: trial-000" in str(report)
    assert "<img" in report._repr_html_() and report.report.version is not None
    metrics = report.tracked.server.client.get_run(report.tracked.id).data.metrics
    assert metrics["test/accuracy"] == report.report.result.meta_test.mean and metrics["search/trials"] == 2.0
    tags = report.tracked.server.client.get_run(report.tracked.id).data.tags
    assert f"- winner: {report.winner.name}, algorithm.inner_lr=" in tags["mlflow.note.content"]
    again = mr.tune(run="mine", **places)
    assert again.report.result == report.report.result
    with pytest.raises(InputError, match="goes on as it was begun"):
        mr.tune(run="mine", trials=3, **places)


def test_words_of_a_job() -> None:
    options: dict[str, Any] = {"workers": 4, "spread": True, "verify": False, "register": False, "run": None}
    options |= {"settings": ["a=1", "b=2"], "hang_timeout_s": 60.0, "tracker": "mlflow", "storage": "s3://bucket/runs"}
    assert words_of("train", "jobs/x.py:f", options) == [
        *("jobs/x.py:f", "--workers", "4", "--spread", "--no-register", "--set", "a=1", "--set", "b=2"),
        *("--hang-timeout", "60.0", "--tracker", "mlflow", "--storage", "s3://bucket/runs"),
    ]
    assert words_of("train", "r", {"profile": True}) + words_of("train", "r", {"profile": 3})[1:] == [
        *("r", "--profile", "--profile", "3")
    ]
    assert words_of("tune", "r", {"search": ["k=choice(1,2)"], "trials": 3})[1:] == [
        *("--search", "k=choice(1,2)", "--trials", "3")
    ]
    with pytest.raises(InputError, match="unknown option of train 'wokers'. Did you mean 'workers'"):
        words_of("train", "r", {"wokers": 2})
    with pytest.raises(InputError, match="unknown command to submit"):
        words_of("evaluate", "r", {})


def test_every_option_of_the_functions_is_one_of_the_command_line(command: Callable[..., Any]) -> None:
    """Else `metaray.submit` would send what the job refuses."""
    for name, function in (("train", mr.train), ("tune", mr.tune)):
        known = set(re.findall(r"--[a-z-]+", command(name, "--help").out))
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in ("progress", "should_stop"):
                continue
            option = {"hang_timeout_s": "--hang-timeout"}.get(parameter.name, f"--{parameter.name.replace('_', '-')}")
            assert option in known, (name, option)


def test_importing_it_is_light() -> None:
    heavy = ("torch", "numpy", "ray", "mlflow", "pyarrow", "pydantic")
    code = f"import sys, metaray; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
