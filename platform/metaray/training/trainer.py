"""Training on Ray: sampler actors and Train workers, started and watched from the driver."""

import os
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from metaray.episodes.stream import start_samplers
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.training.events import Listener
from metaray.training.experiment import Experiment
from metaray.training.placement import Placement
from metaray.training.result import RESULT, Result
from metaray.training.storage import Storage
from metaray.training.worker import Board, train_worker

POLL_S = 0.2
CONNECT_WITHIN_S = 5.0


def connect(placement: Placement) -> None:
    """Start or join a Ray cluster, and check that it has room for the workers.

    Raises:
        InputError: with the arithmetic, if it has not, or if the address cannot be reached.
    """
    for name, value in _QUICK_TRAIN.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        # Without an address Ray would join whatever cluster this machine started last.
        address = placement.address or os.environ.get("RAY_ADDRESS") or "local"
        _check_address(address)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_import_folders()), **_QUICK_TRAIN}},
                logging_level="error",
                # The display is for progress; what workers print is in Ray's own log folder.
                log_to_driver=False,
            )
        except (ConnectionError, ValueError) as error:
            raise InputError(f"no Ray cluster answers at {address!r}: {error}") from error
        if threading.current_thread() is threading.main_thread():
            # Ray puts a handler of its own there, which would end the run without a checkpoint.
            signal.signal(signal.SIGTERM, on_sigterm)
    have = ray.cluster_resources()
    if uses_gpu(placement) and have.get("GPU", 0) < placement.workers:
        raise InputError(
            f"{placement.workers} workers need a GPU each; the cluster has {have.get('GPU', 0):g}; "
            "use fewer --workers, or --device cpu"
        )
    need = placement.workers * placement.cpus_per_worker
    if have.get("CPU", 0) < need:
        raise InputError(
            f"{placement.workers} workers x {placement.cpus_per_worker:g} CPUs = {need:g} CPUs, but the cluster has "
            f"{have.get('CPU', 0):g}; lower --workers or --cpus-per-worker"
        )


def _import_folders() -> list[str]:
    """Where this process imports from besides Python's own folders: the working directory, the recipe's folder."""
    own = (sys.base_prefix, sys.prefix)
    return [str(Path.cwd()), *(path for path in sys.path if path and not path.startswith(own))]


def _check_address(address: str) -> None:
    """Knock at the address: Ray itself would try for minutes, and print how it goes."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"the cluster address {address!r} is not of the form HOST:PORT, for instance head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster answers at {address!r}: {error}. Is it running?") from error


_QUICK_TRAIN = {
    # Ray Train polls its workers each 2 s by default and watches for preemption; both delay start and end by seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def uses_gpu(placement: Placement) -> bool:
    """Whether workers get a GPU each: as asked for, or where the cluster has enough."""
    if placement.device == "auto":
        return bool(ray.cluster_resources().get("GPU", 0) >= placement.workers)
    return placement.device == "cuda"


def train_on_ray(
    experiment: Experiment,
    storage: Storage,
    placement: Placement,
    *,
    display: Listener,
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Run an experiment on the cluster that `connect` joined.

    Args:
        experiment: what to train.
        storage: of the run; every worker must see it.
        placement: workers and samplers.
        display: hears the events in this process.
        listeners: sent to rank 0, which calls them there; they must be picklable.
        should_stop: polled here; True stops the run after a checkpoint.

    Raises:
        RunFailed: if the run stopped itself, or a worker died.
        RunStopped: if `should_stop` said so.
    """
    samplers = start_samplers(
        experiment.source,
        experiment.episodes,
        experiment.seed,
        experiment.meta_batch_size,
        count=placement.samplers,
    )
    board = ray.remote(num_cpus=0)(Board).remote()
    config = {
        "experiment": experiment.to_json(),
        "folder": str(Path.cwd()),
        "fingerprint": experiment.source.fingerprint,
        "storage": storage.root,
        "use_gpu": uses_gpu(placement),
        "samplers": samplers,
        "board": board,
        "listeners": list(listeners),
    }
    try:
        _watch(_FitThread(config, placement), board, display, should_stop)
    finally:
        display.close()
        for actor in (*samplers, board):
            ray.kill(actor)
    return Result.from_json(storage.read(RESULT).decode())


class _FitThread(threading.Thread):
    """`TorchTrainer.fit` in a thread, so that the main thread can display and hear signals."""

    def __init__(self, config: dict[str, Any], placement: Placement) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._config, self._placement = config, placement
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            # Ray Train wants a place of its own; nothing of the run is kept there.
            with tempfile.TemporaryDirectory(prefix="metaray-ray-train-", ignore_cleanup_errors=True) as folder:
                self._trainer(folder).fit()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            self.error = error

    def _trainer(self, folder: str) -> TorchTrainer:
        per_worker = {"CPU": self._placement.cpus_per_worker} | ({"GPU": 1} if self._config["use_gpu"] else {})
        return TorchTrainer(
            train_worker,
            train_loop_config=self._config,
            scaling_config=ScalingConfig(
                num_workers=self._placement.workers,
                use_gpu=self._config["use_gpu"],
                resources_per_worker=per_worker,
            ),
            run_config=RunConfig(
                name=uuid.uuid4().hex, storage_path=folder, failure_config=FailureConfig(max_failures=0)
            ),
        )


def _watch(fit: _FitThread, board: Any, display: Listener, should_stop: Callable[[], bool]) -> None:
    """Pass events from the board to the display until the run ends; raise what ended it."""
    fit.start()
    asked, ending = False, None
    while True:
        alive = fit.is_alive()
        for event in ray.get(board.drain.remote()):
            if event.kind in ("failed", "stopped"):
                ending = event
            else:
                display.on_event(event)
        if should_stop() and not asked:
            asked = True
            board.request_stop.remote()
        if not alive:
            break
        fit.join(POLL_S)
    if ending is not None:
        raise (RunFailed if ending.kind == "failed" else RunStopped)(ending.text)
    if fit.error is not None:
        raise RunFailed(f"a Ray Train worker failed: {fit.error}") from fit.error
