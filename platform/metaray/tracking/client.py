"""A quiet MLflow client for one tracking URI, and the errors MLflow raises, sorted.

Importing MLflow takes more than a second, so it is imported where it is used, here and in the modules beside this one.
"""

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What a user set stays. MLflow's own seven retries of two minutes each would hide for long that a server is gone.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def quiet_mlflow() -> None:
    """Import MLflow without telemetry, progress bars, links on stdout and database chatter."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # MLflow logs through sys.stderr at import, at level INFO, unless told otherwise.
    import mlflow  # noqa: F401

    for name in ("mlflow.store", "mlflow.tracking", "mlflow.models", "mlflow.pyfunc", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Each attempt at a server that is away would be a line, or a traceback; what comes of it is raised as well.
    for name in ("urllib3.connectionpool", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@lru_cache(maxsize=8)
def open_client(uri: str) -> "MlflowClient":
    """The client whose runs and registry are both at `uri`; made once a process, and independent of global state."""
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def error_code(error: Exception) -> str:
    """MLflow's error code, such as `RESOURCE_DOES_NOT_EXIST`; empty for other errors."""
    return str(getattr(error, "error_code", ""))


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later: the server was away or busy, not the request wrong."""
    wrong = ("RESOURCE_", "INVALID_", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND")
    return not error_code(error).startswith(wrong)


def summary(error: Exception) -> str:
    """The first line of an error, without the SQL or traceback that follows it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
