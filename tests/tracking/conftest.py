"""One MLflow database for all tests here: its creation is the slow part."""

from pathlib import Path

import pytest

from metaray.tracking.mlflow_tracker import create_run, prepare, tracking_uri


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prepared SQLite database."""
    found = tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    prepare(found)
    return found


@pytest.fixture
def run_id(uri: str) -> str:
    """A fresh run."""
    return create_run(uri, "tests", "a run", {}, {})


@pytest.fixture(scope="session")
def learner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a learner; the registry does not look into them."""
    folder = tmp_path_factory.mktemp("saved") / "best"
    folder.mkdir()
    (folder / "learner.json").write_text("{}")
    (folder / "parameters.safetensors").write_bytes(bytes(8))
    return folder
