"""Objects that stores are fetched from: on HTTP servers and in S3."""

import base64
import http.client
import logging
import re
import socket
import string
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import IO, Any, NamedTuple, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit

from pyarrow import ArrowException, fs

from metaray.data.access import ACCESS
from metaray.deadline import within
from metaray.errors import InputError, redacted
from metaray.uris import Uri

# Large, because each read of an S3 object is a request of its own.
BLOCK_BYTES = 16 << 20
TIMEOUT_S = 60.0
"""Seconds of silence after which a server is given up."""
ANSWER_WITHIN_S = 120.0
BLOCK_WITHIN_S = 300.0
"""56 kB/s: slower than that, a server is stuck, or means to keep us."""
MOST_REDIRECTIONS = 5
# InputError is a ValueError, too, but the libraries raise none.
NETWORK_ERRORS = (OSError, http.client.HTTPException, ArrowException, ValueError)
S3_REFUSES = re.compile(r"ACCESS_DENIED|HTTP status 40[13]\b|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH")

T = TypeVar("T")


def shown(uri: str) -> str:
    """A path or URI for messages: without passwords and without the signature of an http address."""
    found = Uri.parse(uri)
    if found.scheme in ("http", "https") and found.query is not None:
        found = replace(found, query="...", fragment=None)
    return found.shown


class ObjectVersion(NamedTuple):
    """Size and version of an object, as its server reports them.

    Attributes:
        size_bytes: Size of the object, in bytes.
        version: Version, which changes with the content; empty if the server has none.
    """

    size_bytes: int
    version: str


class RemoteObject(ABC):
    """An object on a server.

    Attributes:
        uri: URI of the object.
        shown: URI for messages, without secrets.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.shown = uri, shown(uri)

    def look(self) -> ObjectVersion:
        """Ask the server about the object without fetching it.

        Raises:
            InputError: If the object is not available; the message names it and what would be right.
        """
        return self._asked(self._look)

    def download(self, target: IO[bytes], size_bytes: int) -> None:
        """Download the object, which has `size_bytes` bytes, to `target`.

        Raises:
            InputError: If the object cannot be read, or has another size.
            OSError: If `target` cannot be written.
        """
        got, why = 0, ""
        with self._asked(self._stream) as stream:
            while got <= size_bytes:
                try:
                    block = within(BLOCK_WITHIN_S, lambda: stream.read(BLOCK_BYTES))
                except NETWORK_ERRORS as error:
                    block, why = b"", f" ({redacted(str(error))})"
                if not block:
                    break
                target.write(block)
                got += len(block)
        if got != size_bytes:
            what = "cut off" if got < size_bytes else "replaced meanwhile"
            raise InputError(f"{self.shown}: {what}: expected {size_bytes} bytes, got {got}{why}; try again")

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return within(ANSWER_WITHIN_S, ask)
        except NETWORK_ERRORS as error:
            raise InputError(f"{self.shown}: {self._why(error)}") from None

    @abstractmethod
    def _look(self) -> ObjectVersion:
        """`look`, with the library's own errors."""

    @abstractmethod
    def _stream(self) -> AbstractContextManager[Any]:
        """The object's content, to `read(size)` from."""

    @abstractmethod
    def _why(self, error: Exception) -> str:
        """What an error of the library means, and what would be right."""


class HttpObject(RemoteObject):
    """An object at an http:// or https:// address."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._said: set[str] = set()

    def _look(self) -> ObjectVersion:
        try:
            return self._seen("HEAD")
        except HTTPError as error:
            if error.code not in (403, 405, 501):
                raise
            error.close()
        # An address that is signed for GET refuses HEAD. The answer's headers do; its body is left unread.
        return self._seen("GET")

    def _seen(self, method: str) -> ObjectVersion:
        with self._request(method) as response:
            length, said = response.headers["Content-Length"], response.headers
        if length is None:
            raise http.client.HTTPException("the server doesn't say how large it is (no Content-Length)")
        return ObjectVersion(int(length), "\n".join(said[name] or "" for name in ("ETag", "Last-Modified")).strip())

    def _stream(self) -> AbstractContextManager[Any]:
        return _Patient(self._request("GET"))

    def _request(self, method: str) -> Any:
        parts = Uri.parse(self.uri)
        account = parts.account
        plain = quote(replace(parts, account=None, fragment=None).text, safe=string.punctuation)
        request = urllib.request.Request(plain, headers={"User-Agent": "metaray"}, method=method)
        if account:
            token = base64.b64encode(unquote(account if ":" in account else f"{account}:").encode()).decode()
            # Unredirected: not for wherever the server may send us.
            request.add_unredirected_header("Authorization", f"Basic {token}")
        opener = urllib.request.build_opener(_Redirections(self.shown, self._said))
        return opener.open(request, timeout=TIMEOUT_S)

    def _why(self, error: Exception) -> str:
        if isinstance(error, HTTPError):
            error.close()
            if error.code in (401, 403):
                return (
                    f"access refused (HTTP status {error.code}): put the address with its signature, or as "
                    f"https://USER:PASSWORD@HOST/..., into {ACCESS} in the environment of every node"
                )
            if error.code in (404, 410):
                return f"no such object (HTTP status {error.code})"
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        if isinstance(reason, socket.gaierror):
            return f"no such host {urlsplit(replace(Uri.parse(self.uri), account=None).text).hostname!r} ({reason})"
        return f"can't be fetched: {redacted(str(reason))}"


class _Patient(AbstractContextManager["_Patient"]):
    """The body of an answer, read as it comes: whoever gives up on it need not wait for a read that is under way."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def read(self, size: int) -> bytes:
        """The next bytes, fewer only at the end.

        Raises:
            TimeoutError: If they do not come within `BLOCK_WITHIN_S`.
        """
        gives_up_s, block = time.monotonic() + BLOCK_WITHIN_S, bytearray()
        while len(block) < size and (part := self._response.read1(size - len(block))):
            block += part
            if time.monotonic() > gives_up_s:
                raise TimeoutError(f"no whole answer within {BLOCK_WITHIN_S:g} s")
        return bytes(block)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows few, only to http(s), and from https to nothing less; says so."""

    max_redirections = MOST_REDIRECTIONS

    def __init__(self, shown_from: str, said: set[str]) -> None:
        self._shown, self._said = shown_from, said

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme.lower() not in allowed:
            fp.close()
            raise http.client.HTTPException(f"it redirects to {shown(newurl)}, which is not {' or '.join(allowed)}")
        if newurl not in self._said:
            self._said.add(newurl)
            logging.getLogger(__name__).warning("%s redirects to %s", self._shown, shown(newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class S3Object(RemoteObject):
    """An object of Amazon's S3, or of any store that speaks its protocol. Credentials come from the environment."""

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system and the path in it."""
        found: tuple[Any, str] = fs.FileSystem.from_uri(self.uri)
        return found

    def _look(self) -> ObjectVersion:
        system, path = self._place
        with system.open_input_file(path) as file:
            said = {name: value.decode() for name, value in file.metadata().items()}
            return ObjectVersion(
                file.size(), "\n".join(said.get(name, "") for name in ("ETag", "Last-Modified")).strip()
            )

    def _stream(self) -> AbstractContextManager[Any]:
        system, path = self._place
        stream: AbstractContextManager[Any] = system.open_input_stream(path)
        return stream

    def _why(self, error: Exception) -> str:
        text = redacted(str(error).splitlines()[0]) if str(error) else type(error).__name__
        if isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in text or "not found" in text:
            return f"no such object ({text})"
        if isinstance(error, PermissionError) or S3_REFUSES.search(text):
            return (
                f"access refused ({text}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every node, and "
                "AWS_ENDPOINT_URL where the store is not Amazon's"
            )
        hint = "; is it in a store that AWS_ENDPOINT_URL has to name?" if "NETWORK_CONNECTION" in text else ""
        return f"can't be fetched: {text}{hint}"
