"""Learners with code of one's own, loaded and served by MLflow, which can be told no trust but in the environment."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import metaray
from metaray.algorithms.algorithm import start
from metaray.algorithms.maml import MAML
from metaray.algorithms.task_shape import TaskShape
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.models import Custom
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.tracking.client import open_client
from metaray.tracking.report import NotUploaded
from metaray.tracking.server import MlflowServer
from metaray.trust import ENVIRONMENT
from tests.learners.test_learner import reseal
from tests.serving.conftest import PREPROCESSING, SPEC
from tests.serving.test_registered import add
from tests.serving.test_scoring_server import answer, in_json
from tests.user_networks import TABLE, WIDTH, own

NETS = """
import math
from torch import nn


def build(*, feature_shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(feature_shape), outputs))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of networks."""
    (tmp_path / "served_nets").mkdir()
    (tmp_path / "served_nets" / "__init__.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    yield tmp_path / "served_nets"
    sys.modules.pop("served_nets", None)


@pytest.fixture
def learner(package: Path) -> Learner:
    algorithm, model = MAML(inner_lr=0.1), Custom(path="served_nets:build")
    _, meta = start(algorithm, model, TaskShape(PREPROCESSING.feature_shape, SPEC.most_ways), seed=0)
    return Learner(algorithm, model, meta, PREPROCESSING, SPEC)


@pytest.fixture
def load(learner: Learner, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Registers the learner; each call loads it as another process would, which has imported none of its code."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "")
    add(MlflowServer(database), learner, tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

    def loaded() -> Any:
        sys.modules.pop("served_nets", None)
        return mlflow.pyfunc.load_model("models:/served@champion")

    return loaded


def setting(error: InputError) -> str:
    """What the message says to put into the environment."""
    return str(error).rpartition(f"{ENVIRONMENT}=")[2].split()[0]


def test_the_message_says_what_to_set_and_then_it_is_served(
    load: Callable[[], Any], learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PyfuncLearner(learner).predict(example_input(learner))
    with pytest.raises(InputError, match="refusing to import 'served_nets:build'") as refusal:
        load()
    assert "served_nets" not in sys.modules
    assert setting(refusal.value) == f"served_nets@{learner.own_code['served_nets']}"
    monkeypatch.setenv(ENVIRONMENT, setting(refusal.value))
    model = load()
    pd.testing.assert_frame_equal(model.predict(example_input(learner)), expected)

    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(model)
    columns, rows = in_json(learner)
    body = {"dataframe_split": {"columns": columns, "data": rows}}
    status, told = answer(app, json.dumps(body).encode())
    assert status == 200 and [row["label"] for row in told["predictions"]] == list(expected["label"])


def test_changed_code_is_refused_with_both_digests(
    load: Callable[[], Any], learner: Learner, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = learner.own_code["served_nets"]
    monkeypatch.setenv(ENVIRONMENT, f"served_nets@{before}")
    load()
    (package / "__init__.py").write_text(NETS + "\nprint('changed')\n")
    with pytest.raises(InputError, match=f"Python files is (?!{before})[0-9a-f]{{64}}, trusted is {before}") as refusal:
        load()
    assert "served_nets" not in sys.modules
    monkeypatch.setenv(ENVIRONMENT, setting(refusal.value))
    load()
    monkeypatch.setenv(ENVIRONMENT, "served_nets")
    load()


def test_a_learner_of_before_digests_names_the_package_alone(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner.save(tmp_path / "learner")
    reseal(tmp_path / "learner", lambda description: description.pop("code"))
    with pytest.raises(InputError) as refusal:
        metaray.load(tmp_path / "learner")
    assert setting(refusal.value) == "served_nets"
    monkeypatch.setenv(ENVIRONMENT, "served_nets")
    assert metaray.load(tmp_path / "learner").code == {}


@pytest.mark.parametrize("code", ["x", {"served_nets": 1}, {"served_nets": "abc"}, {"a b": "0" * 64}], ids=repr)
def test_digests_that_are_none(code: Any, learner: Learner, tmp_path: Path) -> None:
    learner.save(tmp_path / "learner")
    reseal(tmp_path / "learner", lambda description: description.update(code=code))
    with pytest.raises(InputError, match="code must be the SHA-256 of each package"):
        metaray.load(tmp_path / "learner")


def test_what_is_loaded_keeps_the_digest_that_it_had(learner: Learner, tmp_path: Path, package: Path) -> None:
    learner.save(tmp_path / "learner")
    before = learner.own_code
    (package / "__init__.py").write_text(NETS + "# a comment\n")
    sys.modules.pop("served_nets", None)
    loaded = metaray.load(tmp_path / "learner", trust=["served_nets"])
    assert loaded.own_code == before


def test_the_registered_model_says_so(train: Any, make_experiment: Any) -> None:
    report = train(make_experiment(name="own-code", model=own("Plain"), num_steps=2))
    assert report.version is not None
    version = open_client(report.tracked.server.uri).get_model_version("own-code", str(report.version.version))
    digest = metaray.load(report.version.uri, tracking_uri=report.tracked.server.uri, trust=["tests"]).code["tests"]
    assert f"{ENVIRONMENT}=tests@{digest} (the digest is of" in version.description
    from mlflow.models import Model

    model = Model.load(f"{version.source.removeprefix('file://')}/MLmodel")
    assert model.metadata["trust"] == f"{ENVIRONMENT}=tests@{digest}"


def test_a_network_that_reads_a_file_of_elsewhere_is_not_registered(
    train: Any, make_experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is whole, and can be registered once its constructor does without."""
    save_file({"table": torch.zeros(WIDTH)}, tmp_path / "table.safetensors")
    monkeypatch.setenv(TABLE, str(tmp_path / "table.safetensors"))
    with pytest.raises(NotUploaded, match=r"needs files that are not in the learner: it opens '.*table\.safetensors'"):
        train(make_experiment(name="reads", model=own("Reading", how="frozen"), num_steps=2))
