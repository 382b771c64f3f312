"""What a database on disk says of itself is what MLflow would say."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.store.db.utils import _get_latest_schema_revision

from metaray.tracking import database_file
from metaray.tracking.database_file import latest_revision, takes_run
from metaray.tracking.server import MlflowServer


@pytest.fixture
def uri(server: MlflowServer, tmp_path: Path) -> str:
    """A database of its own, with an experiment that was deleted."""
    path = tmp_path / "own.db"
    shutil.copy(server.uri.removeprefix("sqlite:///"), path)
    client = MlflowServer.of(f"sqlite:///{path}").client
    client.create_experiment("there")
    client.delete_experiment(client.create_experiment("deleted"))
    return f"sqlite:///{path}"


def test_the_latest_revision_is_mlflows() -> None:
    assert latest_revision() == _get_latest_schema_revision()


def test_of_a_database_on_disk_it_is_sure(uri: str, tmp_path: Path) -> None:
    assert takes_run(uri, "there") and takes_run(uri, "it's new")
    assert takes_run(f"sqlite:///{tmp_path}/new.db", "new") and not (tmp_path / "new.db").exists()


def test_what_mlflow_would_refuse_is_for_mlflow(uri: str) -> None:
    assert not takes_run(uri, "deleted")
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'older'")
    assert not takes_run(uri, "there")


def test_what_is_no_plain_database_is_for_mlflow(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.db").write_text("not a database")
    (tmp_path / "empty.db").touch()
    for other in ("http://localhost:1", f"sqlite:///{tmp_path}/text.db", f"sqlite:///{tmp_path}/empty.db"):
        assert not takes_run(other, "there")
    assert not takes_run(f"{uri}?timeout=3", "there")
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert not takes_run(uri, "there")


def test_migrations_that_say_nothing_are_for_mlflow(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_file, "latest_revision", lambda: None)
    assert not takes_run(uri, "there")
