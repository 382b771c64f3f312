"""One MLflow database for all tests here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.server import MlflowServer


@pytest.fixture(scope="session")
def server(make_database: Callable[[str], str]) -> MlflowServer:
    """A prepared SQLite database."""
    return MlflowServer(make_database("mlflow"))


@pytest.fixture
def tracked(server: MlflowServer) -> MlflowRun:
    """A fresh run."""
    return MlflowRun.create(server, "tests", "a run", {}, {})


@pytest.fixture(scope="session")
def learner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a learner; the registry does not look into them."""
    folder = tmp_path_factory.mktemp("saved") / "best"
    folder.mkdir()
    (folder / "learner.json").write_text("{}")
    (folder / "parameters.safetensors").write_bytes(bytes(8))
    return folder
