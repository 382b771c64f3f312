"""What an MLflow database on disk says of itself, read without MLflow: whether a run can surely be written there.

Importing MLflow and opening a database takes seconds. Where this is sure, both can wait until there is something to
write; where it is not, MLflow is to be asked first.
"""

import os
import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from metaray.tracking.probes import PROBE_TIMEOUT_S, sqlite_path

REVISION = re.compile(r'^(down_)?revision\s*(?::[^=]*)?=\s*["\'](\w+)["\']', re.MULTILINE)


def takes_run(uri: str, experiment: str) -> bool:
    """Whether MLflow will certainly accept a new run and its metrics.

    Args:
        uri: Tracking URI of any kind, whose form has been checked.
        experiment: Name of the MLflow experiment, which is made if necessary.

    Returns:
        False if only MLflow can tell, or if MLflow would refuse.
    """
    path = sqlite_path(uri)
    if path is None or "?" in uri or os.environ.get("MLFLOW_ENABLE_WORKSPACES"):
        return False
    latest = latest_revision()
    if latest is None:
        return False
    if not path.exists():
        return True
    try:
        readable = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(readable, uri=True, timeout=PROBE_TIMEOUT_S)) as database:
            database.execute("BEGIN")  # one state of the database, whoever writes meanwhile
            revisions = database.execute("SELECT version_num FROM alembic_version").fetchall()
            named = "SELECT lifecycle_stage FROM experiments WHERE name = ?"
            stages = database.execute(named, [experiment]).fetchall()
    except sqlite3.Error:
        return False
    return revisions == [(latest,)] and stages in ([], [("active",)])


@cache
def latest_revision() -> str | None:
    """Revision of the installed MLflow's database schema; None if it cannot be determined.

    MLflow refuses databases of other revisions.
    """
    found = find_spec("mlflow")
    if found is None or not found.submodule_search_locations:
        return None
    revisions, left = set[str](), set[str]()
    for path in Path(found.submodule_search_locations[0], "store/db_migrations/versions").glob("*.py"):
        for is_left, revision in REVISION.findall(path.read_text(encoding="utf-8")):
            (left if is_left else revisions).add(revision)
    latest = revisions - left
    return latest.pop() if len(latest) == 1 else None
