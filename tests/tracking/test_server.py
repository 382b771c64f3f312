"""Which server is used, and what is found wrong with it before training."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from metaray.errors import InputError, redacted
from metaray.tracking import probes
from metaray.tracking.probes import sqlite_path
from metaray.tracking.server import MlflowServer
from tests.patience import PATIENT_S


@pytest.fixture
def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def http_server(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """A server that knows `answers` by path and is 404 on everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answers.get(self.path.partition("?")[0], (404, "not here"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_flag_beats_environment_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert MlflowServer.of(None).uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/")
    assert MlflowServer.of(None).uri == "http://host:5000"
    assert MlflowServer.of("sqlite:///sub/a.db?timeout=9").uri == f"sqlite:///{tmp_path}/sub/a.db?timeout=9"
    assert MlflowServer.of("postgresql://host/db").uri == "postgresql://host/db"


def test_sqlite_path() -> None:
    assert sqlite_path("sqlite:////a/b.db?x=1") == Path("/a/b.db")
    assert sqlite_path("http://host") is None


def test_passwords_are_not_repeated() -> None:
    assert redacted("postgresql://me:pa:ss@host/db and x") == "postgresql://me:***@host/db and x"
    assert redacted("http://host:5000/a@b") == "http://host:5000/a@b"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///tmp/mlruns", "no longer writes runs to folders"),
        ("./mlruns", "no longer writes runs to folders"),
        ("htp://host:5000", "unknown scheme 'htp'. Did you mean 'http'?"),
        ("databricks://profile", "unknown scheme 'databricks'"),
        ("http://", "is not an address"),
        ("http://host:port", "is not an address"),
        ("sqlite://", "names no database file"),
        ("sqlite:///:memory:", "names no database file"),
        ("postgresql+nosuch://me:secret@host/db", "me:***@host"),
    ],
)
def test_uris_that_can_not_work(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        MlflowServer(uri).prepare()


def test_missing_folder_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder .*nowhere' does not exist"):
        MlflowServer(f"sqlite:///{tmp_path}/nowhere/mlflow.db").prepare()
    assert not (tmp_path / "nowhere").exists()


def test_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match="is not writable"):
        MlflowServer(f"sqlite:///{tmp_path}/mlflow.db").prepare()
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_mlflow_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    with pytest.raises(InputError, match="not a usable SQLite database"):
        MlflowServer(f"sqlite:///{tmp_path}/text.db").prepare()
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(InputError, match="something other than MLflow"):
        MlflowServer(f"sqlite:///{tmp_path}/other.db").prepare()
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        MlflowServer(f"sqlite:///{tmp_path}/folder.db").prepare()


def test_database_of_another_mlflow_version(server: MlflowServer, tmp_path: Path) -> None:
    path = sqlite_path(server.uri)
    assert path is not None
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(path.read_bytes())
    connection = sqlite3.connect(copy)
    connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="can't be used: .*out-of-date database schema"):
        MlflowServer(f"sqlite:///{copy}").prepare()


def test_nobody_listens(closed_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(
        InputError,
        match=rf":{closed_port}' can't be reached within 10 s. Is it running\? \(\[Errno \d+\] Connection refused\)",
    ):
        MlflowServer(f"http://127.0.0.1:{closed_port}").prepare()
    assert time.monotonic() - start < 5


def test_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(InputError, match=r"can't be reached within 0.2 s. Is it running\? \(timed out\)"):
            MlflowServer(f"http://127.0.0.1:{silent.getsockname()[1]}").prepare()
    assert time.monotonic() - start < 5


SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "answers HTTP 404 to MLflow's API; is it an MLflow server?"),
        ({SEARCH: (401, "")}, "refuses the credentials"),
        ({SEARCH: (503, "")}, "answers HTTP 503"),
        ({SEARCH: (200, "{}"), "/version": (200, "2.22.1")}, "runs MLflow 2.22.1; 3.0 or newer is needed"),
    ],
)
def test_servers_that_can_not_be_used(answers: dict[str, tuple[int, str]], message: str) -> None:
    with http_server(answers) as uri, pytest.raises(InputError, match=re.escape(message)):
        MlflowServer(uri).prepare()


def test_server_that_can_be_used() -> None:
    with http_server({SEARCH: (200, "{}"), "/version": (200, "3.17.2")}) as uri:
        MlflowServer(uri).prepare()


@pytest.mark.slow
def test_two_processes_create_one_database(tmp_path: Path) -> None:
    code = f"from metaray.tracking.server import MlflowServer as S; S('sqlite:///{tmp_path}/mlflow.db').prepare()"
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, chatter = process.communicate(timeout=PATIENT_S)
        assert process.returncode == 0, chatter
        assert chatter == ""


def test_importing_the_package_imports_no_mlflow() -> None:
    code = "import sys, metaray.tracking.server, metaray.tracking.registry, metaray.tracking.artifact;"
    code += "print([name for name in ('mlflow', 'ray', 'torch', 'pandas', 'sqlalchemy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"
