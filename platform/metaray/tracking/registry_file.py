"""The registry in an MLflow database on disk, read without MLflow: a listing takes no seconds of imports.

Only tables of the layout that is known here are read; for any other, whoever asks is to ask MLflow.
"""

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from metaray.tracking.probes import PROBE_TIMEOUT_S, sqlite_path
from metaray.tracking.registry import ModelVersion, RegisteredModel, list_models
from metaray.tracking.server import MlflowServer

OWNER = {"name", "workspace"}
LAYOUT: Mapping[str, set[str]] = {
    "registered_models": {*OWNER, "creation_time", "last_updated_time", "description"},
    "registered_model_tags": {*OWNER, "key", "value"},
    "registered_model_aliases": {*OWNER, "alias", "version"},
    "model_versions": {*OWNER, "version", "creation_time", "last_updated_time", "description", "user_id"}
    | {"current_stage", "source", "run_id", "status", "status_message", "run_link", "storage_location"},
    "model_version_tags": {*OWNER, "version", "key", "value"},
}
"""Columns of MLflow's tables, as its migrations have left them since 3.10."""

# MLflow keeps prompts among the models.
PROMPTS = "SELECT name FROM {} WHERE key = 'mlflow.prompt.is_prompt' AND value = 'true'"
MODELS = f"SELECT name FROM registered_models WHERE name NOT IN ({PROMPTS.format('registered_model_tags')})"
VERSIONS = f"""SELECT name, version, creation_time, run_id, source FROM model_versions
    WHERE current_stage IS NOT 'Deleted_Internal' AND name NOT IN ({PROMPTS.format("model_version_tags")})
    ORDER BY version DESC"""


def every_model(server: MlflowServer) -> list[RegisteredModel]:
    """All registered models, by name, read in the fastest way.

    Raises:
        Unreachable: If nothing answers at the server.
        InputError: If the server's URI cannot be used.
    """
    server.glance()
    found = read_models(server.uri)
    if found is None:
        server.prepare()
        found = list_models(server)
    return found


def read_models(uri: str) -> list[RegisteredModel] | None:
    """All registered models, read from a database file; None if only MLflow can read them.

    Args:
        uri: Tracking URI of any kind.
    """
    path = sqlite_path(uri)
    if path is None or not path.is_file() or "?" in uri or os.environ.get("MLFLOW_ENABLE_WORKSPACES"):
        return None
    try:
        readable = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(readable, uri=True, timeout=PROBE_TIMEOUT_S)) as database:
            database.execute("BEGIN")  # one state of the database, whoever writes meanwhile
            return _models(database) if _is_known(database) else None
    except sqlite3.Error:
        return None


def _is_known(database: sqlite3.Connection) -> bool:
    for table, columns in LAYOUT.items():
        if {row[1] for row in database.execute(f"PRAGMA table_info({table})")} != columns:
            return False
    others = "SELECT 1 FROM registered_models WHERE workspace != 'default' LIMIT 1"
    return database.execute(others).fetchone() is None


def _models(database: sqlite3.Connection) -> list[RegisteredModel]:
    aliases = _by_key(
        ((name,), (alias, number))
        for name, alias, number in database.execute(
            "SELECT name, alias, version FROM registered_model_aliases ORDER BY alias"
        )
    )
    tags = _by_key(
        ((name, number), (key, value))
        for name, number, key, value in database.execute(
            "SELECT name, version, key, value FROM model_version_tags ORDER BY key"
        )
    )
    found: dict[str, list[ModelVersion]] = {name: [] for (name,) in database.execute(MODELS)}
    for name, number, created_ms, run_id, source in database.execute(VERSIONS):
        if name not in found:
            continue
        pointing = tuple(alias for alias, target in aliases.get((name,), {}).items() if target == number)
        created = datetime.fromtimestamp(created_ms / 1000, UTC)
        found[name].append(
            ModelVersion(name, number, run_id or None, created, tags.get((name, number), {}), pointing, source)
        )
    return [RegisteredModel(name, tuple(found[name]), aliases.get((name,), {})) for name in sorted(found)]


def _by_key(rows: Iterable[tuple[tuple[object, ...], tuple[str, Any]]]) -> dict[tuple[object, ...], dict[str, Any]]:
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for key, (name, value) in rows:
        found.setdefault(key, {})[name] = value
    return found
