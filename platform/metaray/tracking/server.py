"""The MLflow server or database that holds runs and the registry."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from metaray.errors import RunFailed, redacted, shareable
from metaray.tracking.client import is_transient, open_client
from metaray.tracking.probes import Unreachable, cause, glance, probe, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowServer", "TrackingAway", "Unreachable"]


class TrackingAway(RunFailed):
    """MLflow does not answer, or is busy: the same may work later."""


@dataclass(frozen=True)
class MlflowServer:
    """An MLflow tracking server or database, and its registry. No global state of MLflow is changed.

    Credentials are read from the environment, as MLflow does; timeouts and retries are set in
    `metaray.tracking.client`.

    Attributes:
        uri: Tracking URI, possibly with a password; use `shown` in messages.
    """

    uri: str

    @classmethod
    def of(cls, uri: str | None = None) -> Self:
        """The server at `uri`, else at `MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory.

        A relative SQLite path is made absolute: workers on a cluster have other working directories.
        """
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        path = sqlite_path(uri)
        if path is None or not uri.startswith("sqlite:///"):
            return cls(uri.rstrip("/") if uri.startswith(("http://", "https://")) else uri)
        _, _, options = uri.partition("?")
        return cls(f"sqlite:///{path.absolute()}" + (f"?{options}" if options else ""))

    @property
    def shown(self) -> str:
        """The URI without secrets."""
        return redacted(self.uri)

    @property
    def client(self) -> "MlflowClient":
        """MLflow's own client for the server, created once in each process."""
        return open_client(self.uri)

    def glance(self) -> None:
        """Check the URI as far as possible without importing MLflow or asking a server.

        Raises:
            InputError: If the URI is malformed, or its database file cannot be used.
        """
        glance(self.uri)

    def prepare(self) -> None:
        """Check, in seconds, that runs can be written; creates the database of a new SQLite URI.

        Raises:
            Unreachable: If nothing answers there.
            InputError: If they cannot; the message names the URI and what would be right.
        """
        probe(self.uri)

    @contextmanager
    def asking(self, what: str = "MLflow could not be brought up to date") -> Iterator[None]:
        """Within the block, translate errors of MLflow and of the network into metaray's own.

        Raises:
            TrackingAway: If the server does not answer.
            RunFailed: If MLflow refuses the request.
        """
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield
        except (MlflowException, OSError) as error:
            network = isinstance(error, MlflowException | RequestException | ConnectionError | TimeoutError)
            kind = TrackingAway if network and is_transient(error) else RunFailed
            raise kind(f"{what} at {self.shown!r}: {cause(error)}") from shareable(error)
