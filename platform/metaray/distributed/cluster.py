"""Joining a Ray cluster, or starting one on this machine."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils

from metaray.distributed.ray_session import keep_logs, own_session
from metaray.errors import InputError, redacted
from metaray.imports import FOLDERS, import_folders
from metaray.training.placement import Placement

CONNECT_WITHIN_S = 5.0
LOOPBACK = "127.0.0.1"
TOKEN, KEEP_LOOPBACK = "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

QUICK_TRAIN = {
    # Ray Train polls its workers each 2 s by default and watches for preemption; both delay start and end by seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # How long it waits for the room that a lost node had, and for killed workers to say goodbye.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def connect(placement: Placement) -> None:
    """Start or join a Ray cluster, and check that it has room for the workers.

    Raises:
        InputError: If it has no such room (the message has the arithmetic), or the address cannot be reached.
    """
    join_cluster(placement.address)
    _check_room(placement)


def join_cluster(address: str | None) -> None:
    """Start a Ray cluster on this machine, or join the one at `address`, or the one that RAY_ADDRESS names.

    Raises:
        InputError: If the address cannot be reached.
    """
    for name, value in QUICK_TRAIN.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        # Without an address Ray would join whatever cluster this machine started last.
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        _check_address(address)
        verbose = logging.getLogger("metaray").isEnabledFor(logging.DEBUG)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        found = {
            "PYTHONPATH": os.pathsep.join(_python_path()),
            FOLDERS: os.pathsep.join([*import_folders(), str(Path.cwd())]),
            **{name: os.environ[name] for name in QUICK_TRAIN},
        }
        try:
            with _started(found) if address == "local" else _joined(address, found) as options:
                ray.init(
                    **options,
                    # The display is for progress; what workers print is in Ray's own log folder.
                    logging_level="info" if verbose else "error",
                    log_to_driver=verbose,
                )
        except (ConnectionError, ValueError) as error:
            raise InputError(f"no Ray cluster answers at {address!r}: {error}") from error
        if address == "local":
            own_session(Path(_node().get_session_dir_path()))
        if threading.current_thread() is threading.main_thread():
            # Ray puts a handler of its own there, which would end the run without a checkpoint.
            signal.signal(signal.SIGTERM, on_sigterm)


def start_helpers() -> None:
    """Start what Ray Train's controller would start and wait for: the actor that asks for more nodes where there are.

    It has no public name: where it goes by another one, the controller starts it.
    """
    with suppress(ImportError, AttributeError):
        from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator

        default_autoscaling_coordinator.get_or_create_autoscaling_coordinator()


def ray_logs() -> str:
    """The folder of Ray's own logs on this node, for a message: it stays when this process ends."""
    logs = str(node.get_logs_dir_path()) if (node := _node()) is not None else "/tmp/ray/session_latest/logs"
    keep_logs(Path(logs))
    return logs


def _node() -> Any:
    """What Ray knows of this node; there is no public way to ask for it."""
    return ray._private.worker.global_worker.node


@contextmanager
def closed_cluster() -> Iterator[dict[str, Any]]:
    """Options of `ray.init` for a cluster on this machine that nobody else gets to.

    It listens on loopback alone, and asks for a token that only this process and those that it starts know, from their
    environment. A token that the user has put there stays, and so does a mode of authentication.
    """
    if not {TOKEN, f"{TOKEN}_PATH"}.intersection(os.environ):
        os.environ[TOKEN] = secrets.token_hex(32)  # Ray itself would share one file among all clusters
    # By itself Ray replaces 127.0.0.1 by an address that others reach. It has read the variable when it was imported,
    # and the processes that it starts read it; clusters of several nodes need it unset again.
    before, constant = os.environ.get(KEEP_LOOPBACK), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[KEEP_LOOPBACK], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        with entrypoint_without_secrets():
            yield {"address": "local", "_node_ip_address": LOOPBACK, "dashboard_host": LOOPBACK}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if before is None:
            del os.environ[KEEP_LOOPBACK]
        else:
            os.environ[KEEP_LOOPBACK] = before


@contextmanager
def _started(environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Options of `ray.init` for a cluster on this machine, of this process alone.

    Its processes inherit their environment. With a runtime environment of the job none of those that Ray starts
    beforehand would serve it, and each other one would wait for the agent that makes it.
    """
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with closed_cluster() as options:
            yield options
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _joined(address: str, environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Options of `ray.init` for a cluster that runs."""
    with entrypoint_without_secrets():
        yield {"address": address, "runtime_env": {"env_vars": dict(environment)}}


@contextmanager
def entrypoint_without_secrets() -> Iterator[None]:
    """Within the block, `ray.init` leaves out secrets from our command line, which Ray shows to everybody."""
    told = ray_utils.get_entrypoint_name
    ray_utils.get_entrypoint_name = lambda: redacted(told())
    try:
        yield
    finally:
        ray_utils.get_entrypoint_name = told


def _check_room(placement: Placement) -> None:
    have, fewest = ray.cluster_resources(), placement.workers.fewest
    if uses_gpu(placement) and have.get("GPU", 0) < fewest:
        raise InputError(
            f"{fewest} workers need a GPU each; the cluster has {have.get('GPU', 0):g}; "
            "use fewer --workers, or --device cpu"
        )
    need = fewest * placement.cpus_per_worker
    if have.get("CPU", 0) < need:
        raise InputError(
            f"{fewest} workers x {placement.cpus_per_worker:g} CPUs = {need:g} CPUs, but the cluster has "
            f"{have.get('CPU', 0):g}; lower --workers or --cpus-per-worker"
        )


def _python_path() -> list[str]:
    """Where this process imports from first, besides Python's own folders; recipes' folders come last, here as there.

    Python puts what PYTHONPATH names before its own modules: a recipe called random.py must not hide its `random`.
    """
    others = (sys.base_prefix, sys.prefix)
    return [path for path in sys.path if path and not path.startswith(others) and path not in import_folders()]


def _check_address(address: str) -> None:
    """Knock at the address: Ray itself would try for minutes, and print how it goes."""
    if address in ("auto", "local"):
        return
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"{address!r} is the address of a cluster's dashboard, which takes jobs: `metaray submit train ... "
            f"--address {address}`. To train from here, give the cluster's own address as HOST:PORT, such as head:6379"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"the cluster address {address!r} is not of the form HOST:PORT, for instance head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster answers at {address!r}: {error}. Is it running?") from error


def uses_gpu(placement: Placement) -> bool:
    """Whether workers get a GPU each: as asked for, or where the cluster has enough."""
    if placement.device == "auto":
        return bool(ray.cluster_resources().get("GPU", 0) >= max(1, placement.workers.fewest))
    return placement.device == "cuda"
