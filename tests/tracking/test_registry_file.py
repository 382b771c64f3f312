"""A registry read from its database says what MLflow says of it, and leaves to MLflow what it does not know."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.registry import list_models, set_alias
from metaray.tracking.registry_file import every_model, read_models
from metaray.tracking.server import MlflowServer


@pytest.fixture
def filled(server: MlflowServer, tracked: MlflowRun, tmp_path: Path) -> MlflowServer:
    """A database of its own with models, versions, aliases, a deleted version and a prompt."""
    path = tmp_path / "filled.db"
    shutil.copy(server.uri.removeprefix("sqlite:///"), path)
    found = MlflowServer.of(f"sqlite:///{path}")
    client = found.client
    for name in ("okapi", "it's one name", "none as yet"):
        client.create_registered_model(name)
    for name, count in (("okapi", 3), ("it's one name", 1)):
        for number in range(count):
            run = tracked.id if number else None
            client.create_model_version(name, f"{tmp_path}/{number}", run_id=run, tags={"meta_test.accuracy": "0.9"})
    client.delete_model_version("okapi", "2")
    set_alias(found, "okapi", 1)
    set_alias(found, "okapi", 3, "stable")
    set_alias(found, "okapi", 3, "canary")
    client.register_prompt("greeting", "Hello {{name}}")
    return found


def test_it_says_what_mlflow_says(filled: MlflowServer) -> None:
    found = read_models(filled.uri)
    assert found == list_models(filled) == every_model(filled)
    models = {model.name: model for model in found or ()}
    assert {"okapi", "it's one name", "none as yet"} <= set(models) and "greeting" not in models
    assert [version.version for version in models["okapi"].versions] == [3, 1]
    assert models["okapi"].versions[0].aliases == ("canary", "stable")


def change(server: MlflowServer, statement: str) -> None:
    with closing(sqlite3.connect(server.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE model_versions ADD COLUMN signed_by VARCHAR(64)",
        "DROP TABLE registered_model_aliases",
        "INSERT INTO registered_models (name, workspace) VALUES ('theirs', 'elsewhere')",
    ],
)
def test_another_layout_is_for_mlflow(filled: MlflowServer, statement: str) -> None:
    assert read_models(filled.uri)
    change(filled, statement)
    assert read_models(filled.uri) is None


def test_what_is_no_plain_database_is_for_mlflow(
    filled: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.db").write_text("not a database")
    for uri in ("http://localhost:1", f"sqlite:///{tmp_path}/new.db", f"sqlite:///{tmp_path}/text.db"):
        assert read_models(uri) is None
    assert read_models(f"{filled.uri}?timeout=3") is None
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert read_models(filled.uri) is None


def test_a_listing_imports_nothing_heavy(filled: MlflowServer) -> None:
    heavy = ("mlflow", "sqlalchemy", "pandas", "torch", "numpy", "pyarrow", "ray")
    code = (
        "import sys\n"
        "from metaray.cli import main\n"
        "for arguments in (['list'], ['show', 'okapi'], ['show', 'zebrra']):\n"
        f"    try: main(['registry', *arguments, '--tracking-uri', {filled.uri!r}])\n"
        "    except SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "models:/okapi/3 @canary @stable" in done.stdout and "zebrra" in done.stderr
