"""Training on Ray: sampler actors and Train workers, started and watched from the driver."""

import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaray.distributed.cluster import ray_logs, uses_gpu
from metaray.distributed.cluster_nodes import samplers_on
from metaray.distributed.coordinator import Coordinator
from metaray.distributed.rendezvous import MeetingTorchConfig
from metaray.distributed.samplers import start_samplers
from metaray.distributed.supervisor import Supervisor
from metaray.distributed.temporary_folders import scratch
from metaray.distributed.worker import train_worker
from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.events import Listener
from metaray.records.result import RESULT, Result, read_result
from metaray.records.storage import Storage
from metaray.training.placement import Placement

GROW_EVERY_S = 30.0


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
        listeners: picklable ones, sent to rank 0, which calls them there and waits for them.
        should_stop: polled here; True stops the run after a checkpoint.

    Raises:
        RunFailed: if the run stopped itself, or failures came faster than checkpoints.
        RunStopped: if `should_stop` said so.
    """
    _run(experiment, storage, placement, display, listeners, should_stop, {"conclude": True, "until": None})
    if not storage.exists(RESULT):
        raise RunFailed(f"Ray Train ended without a result, and no worker said why; Ray's own logs: {ray_logs()}")
    return read_result(storage)


def train_part_on_ray(
    experiment: Experiment, storage: Storage, placement: Placement, *, display: Listener, until: int | None = None
) -> None:
    """Only train, up to `until` outer steps; `train_on_ray` goes on from there, and concludes.

    Raises:
        RunFailed: as `train_on_ray`.
        RunStopped: at `until`.
    """
    _run(experiment, storage, placement, display, (), lambda: False, {"conclude": False, "until": until})


def _run(
    experiment: Experiment,
    storage: Storage,
    placement: Placement,
    display: Listener,
    listeners: Sequence[Listener],
    should_stop: Callable[[], bool],
    extent: dict[str, Any],
) -> None:
    """Run an experiment; `extent` is how far."""
    nodes = samplers_on(placement.samplers_on, use_gpu=uses_gpu(placement))
    samplers = start_samplers(
        experiment.source,
        experiment.episodes,
        experiment.seed,
        count=placement.samplers,
        nodes=nodes,
        verify=placement.verify,
    )
    # On the driver's own node, so that it is there as long as the driver is.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    coordinator = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(
        Coordinator
    ).remote()
    config = {
        "experiment": experiment.to_json(),
        "folder": str(Path.cwd()),
        "fingerprint": experiment.source.fingerprint,
        "verify": placement.verify,
        "storage": storage.root,
        "use_gpu": uses_gpu(placement),
        "samplers": samplers,
        "coordinator": coordinator,
        "listeners": list(listeners),
        **extent,
    }
    try:
        supervisor = Supervisor(coordinator, display, placement, samplers)
        supervisor.run(lambda: _FitThread.started(config, placement), should_stop)
    finally:
        display.close()
        for actor in (*samplers, coordinator):
            ray.kill(actor)


class _FitThread(threading.Thread):
    """`TorchTrainer.fit` in a thread, so that the main thread can display and hear signals."""

    def __init__(self, config: dict[str, Any], placement: Placement) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._config, self._placement = config, placement
        self.error: BaseException | None = None

    @classmethod
    def started(cls, config: dict[str, Any], placement: Placement) -> Self:
        """A new one, running."""
        thread = cls(config, placement)
        thread.start()
        return thread

    def run(self) -> None:
        try:
            # Ray Train wants a place of its own; nothing of the run is kept there.
            with scratch("metaray-ray-train-") as folder:
                self._trainer(folder).fit()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            self.error = error

    def _trainer(self, folder: str) -> TorchTrainer:
        placement, use_gpu = self._placement, self._config["use_gpu"]
        fewest, most = placement.workers.fewest, placement.workers.most
        return TorchTrainer(
            train_worker,
            train_loop_config=self._config,
            # The supervisor below finds out who hangs; the collectives of the others have to wait for that.
            torch_config=MeetingTorchConfig(
                timeout_s=int(2 * placement.hang_timeout_s + 60), coordinator=self._config["coordinator"]
            ),
            scaling_config=ScalingConfig(
                num_workers=fewest if fewest == most else (fewest, most),
                use_gpu=use_gpu,
                placement_strategy="SPREAD" if placement.spread else "PACK",
                resources_per_worker={"CPU": placement.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
                elastic_resize_monitor_interval_s=GROW_EVERY_S,
            ),
            # Ray Train restarts without limit; the coordinator knows when that makes no sense.
            run_config=RunConfig(
                name=uuid.uuid4().hex, storage_path=folder, failure_config=FailureConfig(max_failures=-1)
            ),
        )
