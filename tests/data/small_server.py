"""A server of files on this machine, which can also misbehave; it answers as much of S3's protocol as reading needs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class SmallServer:
    """What it serves, and what it was asked.

    Attributes:
        address: as in http://127.0.0.1:1234, without a path.
        objects: path -> content.
        statuses: (method, path) -> an HTTP status to refuse with.
        moved: path -> where it redirects to.
        cut: bytes after which each GET's answer ends.
        silent: about the size.
        before_body: called within a GET, between its headers and its body.
        within_body: called half-way through a GET's body.
        asked: (method, path) of all requests so far.
        accounts: the Authorization header of all requests so far.
    """

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[tuple[str, str], int] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: bool = False
    before_body: Callable[[], object] = lambda: None
    within_body: Callable[[], object] = lambda: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    accounts: list[str | None] = field(default_factory=list)

    def count(self, method: str) -> int:
        """How often it was asked so."""
        return sum(1 for asked, _ in self.asked if asked == method)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: SmallServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        served, path = self.served, self.path.partition("?")[0]
        served.asked.append((self.command, path))
        served.accounts.append(self.headers["Authorization"])
        self.close_connection = True
        status = served.statuses.get((self.command, path)) or (302 if path in served.moved else 200)
        content = served.objects.get(path)
        if status != 200 or content is None:
            self.send_response(404 if status == 200 else status)
            self.send_header("Content-Length", "0")
            if path in served.moved:
                self.send_header("Location", served.moved[path])
            self.end_headers()
            return
        self._send(content)

    def _send(self, content: bytes) -> None:
        served, etag = self.served, md5(content).hexdigest()
        body, wanted = content, self.headers["Range"]
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            body = content[int(first) : int(last) + 1]
        self.send_response(206 if wanted else 200)
        if not served.silent:
            self.send_header("Content-Length", str(len(body)))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{len(content)}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Last-Modified", formatdate(0, usegmt=True))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        served.before_body()
        half = len(body) // 2
        for part in (body[:half], body[half:]) if served.cut is None else (body[: served.cut],):
            self.wfile.write(part)
            self.wfile.flush()
            served.within_body()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that was killed or has read enough is no error here."""


def without_proxies(patch: pytest.MonkeyPatch, server: SmallServer) -> None:
    """Have this machine's settings out of the way, and S3 be the small server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_ACCESS_KEY_ID", "someone")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_ENDPOINT_URL", server.address)


@contextmanager
def small_server() -> Iterator[SmallServer]:
    """One on a free port."""
    served = SmallServer()
    with _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served})) as server:
        served.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
