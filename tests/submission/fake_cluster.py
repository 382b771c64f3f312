"""As much of a Ray dashboard as submitting needs, on this machine; it can also misbehave."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

TOKEN = "0123456789abcdef"


@dataclass
class FakeCluster:
    """What it has, and what it was sent.

    Attributes:
        address: as in http://127.0.0.1:1234.
        token: that it wants; None for a cluster that asks for none.
        ray: its version.
        python: its version; None if it does not tell.
        command: of its raylet; empty if it does not tell.
        jobs: as the API tells of them.
        logs: by job.
        packages: by path.
        statuses: (method, path) -> an HTTP status to answer with, and a text.
        on_stop: statuses of a job after it was asked to stop, one for each time that somebody looks.
        authorizations: the header of every request so far.
        asked: (method, path) of every request so far.
    """

    address: str = ""
    token: str | None = TOKEN
    ray: str = version("ray")
    python: str | None = None
    command: list[str] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    on_stop: list[str] = field(default_factory=lambda: ["RUNNING", "STOPPED"])
    authorizations: list[str | None] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def add(self, job_id: str, status: str, run: str = "", **more: Any) -> dict[str, Any]:
        """A job."""
        job = {"submission_id": job_id, "status": status, "start_time": 1_000_000 + len(self.jobs), **more}
        self.jobs.append(job | {"metadata": {"metaray.run": run} if run else {}})
        return self.jobs[-1]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and text."""
        if (method, path) in self.statuses:
            status, text = self.statuses[method, path]
            return status, text.encode()
        if path == "/api/version":
            return 200, json.dumps({"ray_version": self.ray}).encode()
        if path == "/api/v0/cluster_metadata" and self.python is not None:
            return 200, json.dumps({"data": {"pythonVersion": self.python}}).encode()
        if path == "/nodes?view=summary" and self.command:
            heads = [(True, "DEAD", ["--python_worker_command=/dead/python x"]), (True, "ALIVE", self.command)]
            nodes = [
                {"raylet": {"isHeadNode": h, "state": s}, "cmdline": c} for h, s, c in (*heads, (False, "ALIVE", []))
            ]
            return 200, json.dumps({"data": {"summary": nodes}}).encode()
        if path.startswith("/api/packages/gcs/"):
            if method == "PUT":
                self.packages[path] = body
            return (200 if path in self.packages else 404), b""
        if path.startswith("/api/jobs/"):
            return self._about_jobs(method, path.removeprefix("/api/jobs/"), body)
        return 404, b"no such page"

    def _about_jobs(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if not path and method == "GET":
            # A job of `ray.init` in a notebook: of another type, without a submission's id.
            return 200, json.dumps([*self.jobs, {"job_id": "01000000", "status": "RUNNING"}]).encode()
        if not path:
            tree = json.loads(body)
            if any(job["submission_id"] == tree["submission_id"] for job in self.jobs):
                text = (
                    f"Traceback\nValueError: Job with submission_id {tree['submission_id']} already exists. Use another"
                )
                return 500, text.encode()
            self.jobs.append({"status": "PENDING", "start_time": 1, **tree})
            return 200, b"{}"
        name, _, verb = path.partition("/")
        found = [job for job in self.jobs if job["submission_id"] == name]
        if not found:
            return 404, f"Job {name} does not exist".encode()
        (job,) = found
        if verb == "logs":
            return 200, json.dumps({"logs": self.logs.get(name, "")}).encode()
        if verb == "stop":
            job["next"] = list(self.on_stop)
            return 200, b'{"stopped": true}'
        if job.get("next"):
            job["status"] = job["next"].pop(0)
        return 200, json.dumps(job).encode()


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_POST = do_GET

    def _answer(self) -> None:
        cluster, given = self.cluster, self.headers["Authorization"]
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        cluster.asked.append((self.command, self.path))
        cluster.authorizations.append(given)
        if cluster.token is not None and given != f"Bearer {cluster.token}":
            status, text = (401 if given is None else 403), b"Unauthorized"
        else:
            status, text = cluster.answer(self.command, self.path, body)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", text.decode())
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def fake_cluster(tls: ssl.SSLContext | None = None) -> Iterator[FakeCluster]:
    """One on a free port; with `tls`, over HTTPS."""
    cluster = FakeCluster()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster})) as server:
        cluster.address = f"http://127.0.0.1:{server.server_port}"
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            cluster.address = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield cluster
        finally:
            server.shutdown()
            thread.join()
