"""The way from a command line here to a job there: what may be asked for, and how it is said."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metaray.errors import InputError, redacted, unknown
from metaray.records.provenance import CHECKOUT
from metaray.submission.access import is_loopback
from metaray.submission.client import RUN, AlreadyThere, Job, JobsClient
from metaray.submission.job import EXPECTS, HOME, advice, differing
from metaray.submission.packing import Pack, uri_of

STOP_WITHIN_S = 120
"""How long a run that is to stop may take to write its checkpoint; Ray's own 3 s are over before a step is."""
STORAGES = ("abfs", "abfss", "file", "gcs", "gs", "hdfs", "s3", "viewfs")
DATABASES = ("mssql", "mysql", "postgresql")
ACCEPT = "or accept with --local-to-head that the result is lost with the head node"
CREDENTIALS = {
    "storage": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what your store reads)",
    "tracking": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; for PostgreSQL "
    "PGPASSWORD",
}


@dataclass(frozen=True)
class Order:
    """A command as it is to run on the cluster.

    Attributes:
        run: Name of the run or search.
        words: `train` or `tune`, and its arguments.
        python: Python interpreter that runs it, on the head node; None for the one that runs Ray there.
        checkout: Tags of the checkout that it is submitted from, for the run to have.
    """

    run: str
    words: tuple[str, ...]
    python: str | None = None
    checkout: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """The command for a shell. With `exec` the signal to stop, and the exit code, meet no shell in between."""
        return "exec " + shlex.join([self.python or "python", "-m", "metaray.submission.job", *self.words])


def with_options(order: Order, changes: Mapping[str, str | None]) -> Order:
    """The order with options said last, where they win; those that are None stay as they are."""
    added = [word for option, value in changes.items() if value is not None for word in (option, value)]
    return replace(order, words=(*order.words, *added))


def check_secrets(words: Iterable[str]) -> None:
    """A job's command line is shown to everybody who can list jobs.

    Raises:
        InputError: If there is a credential in it.
    """
    for word in words:
        if redacted(word) == word:
            continue
        raise InputError(
            f"{redacted(word)!r} holds a credential, which jobs show to everybody on the cluster. Leave it out, and "
            f"set it in the nodes' environment: {CREDENTIALS['storage']}; {CREDENTIALS['tracking']}"
        )


def lasting_storage(storage: str, *, local: bool) -> str | None:
    """What `--storage` must be instead; None if it may stay.

    Args:
        storage: Storage as given, or by default.
        local: Whether the head node's own disk will do.

    Raises:
        InputError: If the head node would take it along.
    """
    if "://" in storage:
        scheme = storage.partition("://")[0].lower()
        if scheme not in STORAGES:
            raise unknown("kind of --storage", scheme, STORAGES)
        return None
    if not local:
        raise InputError(
            f"--storage {storage!r} is a folder of the head node: name a URI such as s3://BUCKET/runs, or "
            f"file:///MOUNT/runs for a file system that all nodes mount, {ACCEPT}"
        )
    # A job's own folder is deleted some time after the job.
    return None if storage.startswith(("/", "~")) else f"{HOME}/{storage}"


def lasting_tracking(flag: str | None, environment: str | None, address: str, *, local: bool) -> str | None:
    """What `--tracking-uri` must be said to be; None if the flag says it all.

    Args:
        flag: `--tracking-uri` as given.
        environment: MLFLOW_TRACKING_URI of this machine; the head node's may be another.
        address: Address of the cluster. To one that is elsewhere "localhost" means itself.
        local: Whether the head node's own disk will do.

    Raises:
        InputError: If the head node would take it along.
    """
    uri = flag or environment or "sqlite:///mlflow.db"
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    is_server = scheme in ("http", "https", *DATABASES)
    if is_server and (local or is_loopback(address) or not is_loopback(uri)):
        return None if flag else uri
    if not local:
        what = "is, seen from the cluster, the head node itself" if is_server else "is no server"
        raise InputError(
            f"--tracking-uri {redacted(uri)!r} {what}: name one that outlives the head node, such as https://HOST:PORT "
            f"or postgresql://, here or in MLFLOW_TRACKING_URI, {ACCEPT}"
        )
    relative = re.fullmatch(r"sqlite:///(?![/~])(.+)", uri)
    return f"sqlite:///{HOME}/{Path(relative[1]).name}" if relative else (None if flag else uri)


def shipped_recipe(recipe: str, project: Path) -> tuple[str, Path]:
    """The recipe as it is named inside the pack, and its file.

    Raises:
        InputError: If it is not below the project's folder.
    """
    file, colon, function = recipe.rpartition(":") if not recipe.endswith(".json") else (recipe, "", "")
    path = Path(os.path.normpath(project / file))
    if not path.is_relative_to(project):
        path = path.resolve()
    if not path.is_relative_to(project):
        raise InputError(f"recipe {recipe!r} is not below {project}; start from the folder of its project")
    return f"{path.relative_to(project).as_posix()}{colon}{function}", path


def check_versions(client: JobsClient, expected: Mapping[str, str]) -> None:
    """Compare with the cluster's head, before anything is sent; the job compares the rest.

    Raises:
        InputError: If versions differ by too much; the message names those.
    """
    found = {"ray": client.ray_version()}
    if python := client.python_version():
        found["python"] = python
    if problems := differing(expected, found):
        raise InputError(advice(problems))


def job_id(run: str, jobs: Sequence[Job]) -> str:
    """Id for a run's next job; `jobs` are all there are.

    Raises:
        InputError: If the run is busy.
    """
    for job in jobs:
        if job.run == run and not job.has_ended:
            raise InputError(busy(run, job.id))
    taken, number, found = {job.id for job in jobs}, 1, f"metaray-{run}"
    while found in taken:
        number += 1
        found = f"metaray-{run}-{number}"
    return found


def busy(run: str, job: str) -> str:
    """What to tell who submits a run twice."""
    return (
        f"run {run!r} is job {job} and has not ended: `metaray jobs logs {job} --follow` shows it, "
        f"`metaray jobs stop {job}` stops it, and then the same command goes on with it"
    )


def send(client: JobsClient, order: Order, pack: Pack, expected: Mapping[str, str], note: Callable[[str], None]) -> str:
    """Ship the files and start the job; returns its id.

    Raises:
        InputError: If the run is busy.
    """
    check_secrets(order.words)
    found = job_id(order.run, client.jobs())
    order = replace(order, python=order.python or client.head_python())
    archive = pack.zipped()
    note(f"packed {pack.summary()} ({len(archive) / 1e6:.2f} MB compressed)")
    if pack.left:
        note(f"left out: {pack.left_out()}. --include PATTERN takes files along; --dry-run lists them all")
    client.upload(uri_of(archive), archive)
    try:
        client.submit(found, order.entrypoint, runtime_env(uri_of(archive), expected, order.checkout), {RUN: order.run})
    except AlreadyThere:
        raise InputError(busy(order.run, found)) from None  # somebody else submitted it since we looked
    return found


def runtime_env(package: str, expected: Mapping[str, str], checkout: Mapping[str, str]) -> dict[str, Any]:
    """Environment of the job. Anybody who can list jobs can read it, so nothing of this machine's environment is in it.

    What a run's own `ray.init` sets must not be here: Ray refuses to be told twice.
    """
    variables = {
        EXPECTS: json.dumps(dict(expected)),
        CHECKOUT: json.dumps(dict(checkout)),
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WITHIN_S),
    }
    return {"working_dir": package, "env_vars": variables}
