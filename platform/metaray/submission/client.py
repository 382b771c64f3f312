"""Ray's Jobs API over HTTP.

Not through `ray.job_submission`: its client waits for ever on a server that does not answer, lets RAY_ADDRESS override
the address it is given, and needs Ray imported, which takes longer than most of these commands.
"""

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar, final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from pydantic import BaseModel, ConfigDict, Field

from metaray.deadline import within
from metaray.errors import InputError, RunFailed
from metaray.json_text import parse_json
from metaray.submission.access import TOKEN, WHERE_TOKENS_ARE, check_transport, is_loopback, read_token

TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 300.0
PATIENCE = 4
"""A whole answer may take so many times as long as silence may."""
LONGEST_ANSWER, LONGEST_PROBLEM = 256 << 20, 1 << 20
RUN = "metaray.run"
"""Key of a job's metadata that holds the run's name."""
_WORKERS = "--python_worker_command="
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999, after which Python knows no dates."""

T = TypeVar("T")


class ClusterAway(InputError):
    """No Ray cluster answers at an address that may well be right."""


class Refused(InputError):
    """The cluster wants a token, or another one."""


class AlreadyThere(RuntimeError):
    """The cluster has a job of that id."""


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        id: Id that it was submitted under.
        run: Name of metaray's run; empty for jobs that are not ours.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: Ray's words on that.
        started: When it started, in UTC.
        ended: When it ended, in UTC; None before.
        exit_code: Exit code of the command; None before, and where it was stopped or never came to run.
        entrypoint: Its command line.
    """

    id: str
    run: str
    status: str
    message: str
    started: datetime | None
    ended: datetime | None
    exit_code: int | None
    entrypoint: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Job":
        """A job as the API describes it.

        Raises:
            ValidationError: If it describes something else.
        """
        told = _Told.model_validate(tree)
        return cls(
            id=told.submission_id,
            run=str((told.metadata or {}).get(RUN, "")),
            status=told.status,
            message=told.message or "",
            started=_time(told.start_time),
            ended=_time(told.end_time),
            exit_code=told.driver_exit_code,
            entrypoint=told.entrypoint or "",
        )


class _Told(BaseModel):
    """What the API says of a job; other versions of Ray say more."""

    model_config = ConfigDict(strict=True)

    submission_id: str
    status: str
    metadata: dict[str, Any] | None = None
    message: str | None = None
    start_time: Annotated[int, Field(ge=0, le=LATEST_MS)] | None = None
    end_time: Annotated[int, Field(ge=0, le=LATEST_MS)] | None = None
    driver_exit_code: int | None = None
    entrypoint: str | None = None


@final
class JobsClient:
    """The jobs of one cluster.

    Args:
        address: URL of the dashboard.
        token: None for a cluster without authentication.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self.address = address
        self._token = token
        # A proxy for the wide world has no business between this machine and itself.
        proxies = [ProxyHandler({})] if is_loopback(address) else []
        self._opener = build_opener(_NoRedirect, *proxies)

    def ray_version(self) -> str:
        """Version of Ray on the head."""
        return self._told("/api/version", lambda tree: _text(tree["ray_version"]))

    def python_version(self) -> str | None:
        """Version of Python on the head, where it tells."""
        try:
            found = parse_json(self._ask("GET", "/api/v0/cluster_metadata"), where="")["data"]["pythonVersion"]
        except (RunFailed, LookupError, TypeError, AttributeError, ValueError):
            return None
        return str(found)

    def head_python(self) -> str | None:
        """The Python that the head runs its workers with, where it tells; `python` there may be another."""
        try:
            nodes = parse_json(self._ask("GET", "/nodes?view=summary"), where="")["data"]["summary"]
            (head,) = [node for node in nodes if node["raylet"]["isHeadNode"] and node["raylet"]["state"] == "ALIVE"]
            (command,) = [word for word in head["cmdline"] if word.startswith(_WORKERS)]
        except (RunFailed, LookupError, TypeError, AttributeError, ValueError):
            return None
        return str(command.removeprefix(_WORKERS).split()[0])

    def upload(self, uri: str, archive: bytes) -> None:
        """Make a package known to the cluster, unless it is there."""
        path = f"/api/packages/{uri.replace('://', '/')}"
        if self._ask("GET", path, missing=b"missing") == b"missing":
            self._ask("PUT", path, archive, timeout_s=UPLOAD_TIMEOUT_S)

    def submit(self, job_id: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Start a job.

        Raises:
            AlreadyThere: If there is one of that id.
        """
        tree = {"entrypoint": entrypoint, "submission_id": job_id, "runtime_env": runtime_env, "metadata": metadata}
        self._ask("POST", "/api/jobs/", json.dumps(tree).encode(), timeout_s=120.0)

    def jobs(self) -> list[Job]:
        """All that were submitted, the newest first."""

        def read(trees: Any) -> list[Job]:
            if not isinstance(trees, list):
                raise TypeError("no list")
            return [Job.from_json(tree) for tree in trees if tree.get("submission_id")]

        found = self._told("/api/jobs/", read)
        return sorted(found, key=lambda job: job.started or datetime.min.replace(tzinfo=UTC), reverse=True)

    def job(self, job_id: str) -> Job:
        """One job."""
        return self._told(f"/api/jobs/{quote(job_id)}", Job.from_json)

    def logs(self, job_id: str) -> str:
        """All that it printed so far; empty once its node is gone."""
        return self._told(f"/api/jobs/{quote(job_id)}/logs", lambda tree: _text(tree["logs"]))

    def stop(self, job_id: str) -> None:
        """Ask it to stop."""
        self._ask("POST", f"/api/jobs/{quote(job_id)}/stop", b"")

    def _told(self, path: str, read: Callable[[Any], T]) -> T:
        """What an answer says.

        Raises:
            RunFailed: If it is not what Ray's API says.
        """
        data = self._ask("GET", path)
        try:
            return read(parse_json(data, where=f"what {self.address} answers to {path}"))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            why = error if isinstance(error, InputError) else "it is not what Ray's Jobs API says"
            raise RunFailed(f"the answer of {self.address} to {path} cannot be used: {why}") from None

    def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        missing: bytes | None = None,
    ) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "metaray"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = Request(self.address + path, data, headers, method=method)
        try:
            return within(timeout_s * PATIENCE, lambda: self._answer(request, timeout_s))
        except HTTPError as error:
            with error:
                text = within(timeout_s, partial(error.read, LONGEST_PROBLEM)).decode(errors="replace")
            if error.code == 404 and missing is not None:
                return missing
            raise self._problem(error.code, text, path) from None
        except (URLError, OSError, http.client.HTTPException) as error:
            raise self._away(error.reason if isinstance(error, URLError) else error) from None

    def _answer(self, request: Request, timeout_s: float) -> bytes:
        with self._opener.open(request, timeout=timeout_s) as answer:
            data = bytes(answer.read(LONGEST_ANSWER + 1))
        if len(data) > LONGEST_ANSWER:
            raise RunFailed(f"the cluster at {self.address} answers with more than {LONGEST_ANSWER >> 20} MB")
        return data

    def _away(self, reason: object) -> InputError:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return InputError(
                f"the certificate of {self.address} is not trusted here ({reason.verify_message}): if it should be, "
                "name the file of whoever signed it in SSL_CERT_FILE"
            )
        plain = isinstance(reason, ssl.SSLError) and reason.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
        hint = "Is it http://?" if plain else "Is its dashboard running?"
        return ClusterAway(f"no Ray cluster answers at {self.address}: {reason}. {hint}")

    def _problem(self, code: int, text: str, path: str) -> Exception:
        if code in (401, 403):
            have = "no token is sent" if self._token is None else "the token is not the cluster's"
            return Refused(f"the cluster at {self.address} refuses access (HTTP {code}): {have}; {WHERE_TOKENS_ARE}")
        if "already exists" in text:
            return AlreadyThere(path)
        lines = text.strip().splitlines() or [""]
        if code == 404 and path == "/api/version":
            return InputError(f"what answers at {self.address} is no Ray dashboard (HTTP 404); its port is often 8265")
        return RunFailed(f"the cluster at {self.address} answers HTTP {code} to {path}: {lines[-1][:300]}")


def connect(address: str, *, insecure: bool, runs_code: bool) -> JobsClient:
    """A client that may be used, as far as can be told from outside.

    Args:
        address: URL of the dashboard.
        insecure: Accept plain HTTP to another machine, and a cluster without authentication.
        runs_code: Whether code is to be sent, for which the cluster must ask who sends it.

    Raises:
        InputError: If nothing answers there, or it is not safe; says why and what would be.
    """
    check_transport(address, insecure=insecure)
    anonymous = JobsClient(address, None)
    try:
        anonymous.ray_version()
    except Refused:
        token = read_token()
        if token is None:
            raise
        client = JobsClient(address, token)
        client.ray_version()
        return client
    if runs_code and not insecure:
        raise InputError(
            f"the cluster at {address} asks nobody for a token: whoever reaches it runs code there, and changes yours. "
            f"Start it with RAY_AUTH_MODE=token and {TOKEN} or a token file (mode 0600), or accept it with --insecure"
        )
    return anonymous


@final
class _NoRedirect(HTTPRedirectHandler):
    """Never carry the token to wherever an answer points."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse; the redirection itself is then the answer."""


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
