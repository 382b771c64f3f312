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
    """A tracking server or database, whose registry is the same. No global state of MLflow's is touched.

    Credentials are those that MLflow itself reads from the environment; how often and how long it is asked is set in
    `metaray.tracking.client`.

    Attributes:
        uri: Its tracking URI, perhaps with a password; messages take `shown`.
    """

    uri: str

    @classmethod
    def of(cls, uri: str | None = None) -> Self:
        """The one at `uri`, else at `MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory.

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
        """Its URI without secrets."""
        return redacted(self.uri)

    @property
    def client(self) -> "MlflowClient":
        """MLflow's own client of it, made once a process."""
        return open_client(self.uri)

    def glance(self) -> None:
        """Check what can be found out without importing MLflow or asking a server.

        Raises:
            InputError: If the URI is malformed, or its database file cannot be used.
        """
        glance(self.uri)

    def prepare(self) -> None:
        """Check, in seconds, that it can be written to; create the database if it is a new SQLite file.

        Raises:
            Unreachable: If nothing answers there.
            InputError: If it can't; the message names the URI and what would be right.
        """
        probe(self.uri)

    @contextmanager
    def asking(self, what: str = "MLflow could not be brought up to date") -> Iterator[None]:
        """Within the block, tell errors of MLflow and of the network in our words.

        Raises:
            TrackingAway: If the server does not answer.
            RunFailed: If it refuses.
        """
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield
        except (MlflowException, OSError) as error:
            network = isinstance(error, MlflowException | RequestException | ConnectionError | TimeoutError)
            kind = TrackingAway if network and is_transient(error) else RunFailed
            raise kind(f"{what} at {self.shown!r}: {cause(error)}") from shareable(error)
