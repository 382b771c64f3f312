"""Whether a tracking server or database can be used: found out in seconds, before anything is trained."""

import os
import re
import socket
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from metaray.deadline import within
from metaray.errors import InputError, redacted, shareable, unknown
from metaray.tracking.client import open_client, quiet_mlflow, summary

PROBE_TIMEOUT_S = 10.0
OLDEST_SERVER = 3  # the first whose registry knows logged models
DATABASE_PORTS: Mapping[str, int] = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SCHEMES = ("http", "https", "sqlite", *DATABASE_PORTS)
WHAT_IS_RIGHT = "Give sqlite:///PATH/mlflow.db, http(s)://HOST:PORT or a database URI such as postgresql://."


class Unreachable(InputError):
    """Nothing answers at a tracking URI, although the URI may be right."""


def sqlite_path(uri: str) -> Path | None:
    """The database file of a `sqlite:///` URI, None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def cause(error: Exception) -> str:
    """The cause of an error in a few words, without passwords; HTTP libraries wrap it several times, with the URI."""
    text = redacted(summary(error))
    found = re.search(r"\[(Errno|SSL)[^\]]*\] [\w ,:]+|timed out", text)
    return found[0].strip() if found else text


def probe(uri: str) -> None:
    """Check, in seconds, that runs can be written to `uri`; creates the database of a new SQLite URI.

    Raises:
        Unreachable: If nothing answers there.
        InputError: If they cannot; the message names the URI and what would be right.
    """
    scheme = glance(uri)
    if scheme in ("http", "https"):
        _probe_http(uri)
        return
    if scheme != "sqlite":
        _probe_database(uri, scheme)
    try:
        if scheme == "sqlite":
            _create_sqlite(uri)
        open_client(uri)
    except Exception as error:  # noqa: BLE001 - MLflow, SQLAlchemy and each driver raise their own
        problem = f"tracking database {redacted(uri)!r} can't be used: {redacted(summary(error))}"
        raise InputError(problem) from shareable(error)


def glance(uri: str) -> str:
    """Check a tracking URI as far as possible without importing MLflow or asking a server; returns its scheme.

    Raises:
        InputError: If the URI is malformed, or its database file cannot be used.
    """
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else uri.partition(":")[0]
    if scheme == "file" or "://" not in uri:
        raise InputError(
            f"tracking URI {redacted(uri)!r} names a folder; MLflow no longer writes runs to folders. {WHAT_IS_RIGHT}"
        )
    if scheme not in SCHEMES:
        raise InputError(f"tracking URI {redacted(uri)!r}: {unknown('scheme', scheme, SCHEMES)} {WHAT_IS_RIGHT}")
    if scheme == "sqlite":
        _check_sqlite_file(uri)
    return scheme


def _check_sqlite_file(uri: str) -> None:
    path = sqlite_path(uri)
    if path is None or path.name in ("", ":memory:"):
        raise InputError(f"tracking URI {uri!r} names no database file; for instance sqlite:///mlflow.db")
    where = f"tracking database {str(path)!r}"
    if not path.parent.is_dir():
        raise InputError(f"{where}: the folder {str(path.parent)!r} does not exist; create it or name another.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{where}: the folder {str(path.parent)!r} is not writable; name one that is.")
    if not path.exists():
        return
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        raise InputError(f"{where} is not a file that can be read and written; name another.")
    try:
        readable = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(readable, uri=True, timeout=PROBE_TIMEOUT_S)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise InputError(f"{where} is not a usable SQLite database ({error}); name another file.") from error
    if tables and "alembic_version" not in tables:
        raise InputError(f"{where} is a SQLite database of something other than MLflow; name another file.")


def _create_sqlite(uri: str) -> None:
    """Make a new database whole or not at all.

    MLflow takes a second for it and locks nothing: two processes that start together would break each other's
    migrations, and one that is killed would leave a database that MLflow refuses from then on.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as beside:
        made, whole = Path(scratch) / "mlflow.db", Path(beside) / path.name
        open_client(f"sqlite:///{made}")
        with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(whole)) as copy:
            source.backup(copy)
        try:
            os.link(whole, path)  # unlike a rename, this never replaces what another process has made
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                whole.rename(path)


def _probe_database(uri: str, scheme: str) -> None:
    """Connect once, ourselves: MLflow would retry a wrong password for minutes."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    where = f"tracking database {redacted(uri)!r}"
    try:
        engine = create_engine(uri)
        host, port = engine.url.host, engine.url.port or DATABASE_PORTS[scheme]
        if host is not None:  # None: a Unix socket, or a host among the options, which the driver knows
            socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S).close()
        engine.connect().close()
    except ImportError as error:
        raise InputError(f"{where} needs a Python driver that is not installed: {error}") from error
    except OSError as error:
        raise Unreachable(f"{where} can't be reached at {host}:{port}: {error}. Is it running?") from error
    except (SQLAlchemyError, ValueError) as error:
        raise InputError(f"{where} can't be used: {redacted(summary(error))}") from shareable(error)


def _probe_http(uri: str) -> None:
    where = f"tracking server {redacted(uri)!r}"
    try:
        parts = urlsplit(uri)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        raise InputError(f"{where} is not an address; for instance http://localhost:5000")
    status, _ = _get(uri, "/api/2.0/mlflow/experiments/search?max_results=1", where)
    if status in (401, 403):
        raise InputError(
            f"{where} refuses the credentials (HTTP {status}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if status != 200:
        # So answers a proxy whose server is away, or a server whose database is.
        kind = Unreachable if status >= 500 else InputError
        raise kind(f"{where} answers HTTP {status} to MLflow's API; is it an MLflow server?")
    status, version = _get(uri, "/version", where)
    major = re.match(r"(\d+)\.", version)
    if status == 200 and major and int(major[1]) < OLDEST_SERVER:
        raise InputError(f"{where} runs MLflow {version.strip()}; {OLDEST_SERVER}.0 or newer is needed.")


def _get(uri: str, endpoint: str, where: str) -> tuple[int, str]:
    """Status and text, with the credentials and certificates MLflow itself would use, and without its retries."""
    quiet_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        credentials = get_default_host_creds(uri)
        answer = within(
            3 * PROBE_TIMEOUT_S,
            lambda: http_request(
                credentials, endpoint, "GET", max_retries=0, timeout=PROBE_TIMEOUT_S, raise_on_status=False
            ),
        )
    except (MlflowException, TimeoutError) as error:
        problem = f"{where} can't be reached within {PROBE_TIMEOUT_S:g} s. Is it running? ({cause(error)})"
        raise Unreachable(problem) from shareable(error)
    return int(answer.status_code), str(answer.text)
