"""Training on Ray: sampler actors and Train workers, started and watched from the driver."""

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaray.distributed.cluster import ray_logs, uses_gpu
from metaray.distributed.cluster_nodes import samplers_on
from metaray.distributed.coordinator import Coordinator
from metaray.distributed.rendezvous import MeetingConfig
from metaray.distributed.samplers import start_samplers
from metaray.distributed.supervisor import Supervisor
from metaray.distributed.temporary_folders import scratch
from metaray.distributed.worker import train_worker
from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.begun import as_begun
from metaray.records.events import Listener
from metaray.records.result import RESULT
from metaray.records.storage import Storage
from metaray.training.place import WHOLE, Extent, Place
from metaray.training.placement import Placement

GROW_EVERY_S = 30.0


@dataclass(frozen=True)
class OnRay(Place):
    """Sampler actors and Ray Train workers of the cluster that `connect` joined.

    Attributes:
        placement: Workers, samplers, and what they may use.
        listeners: Picklable ones, sent to rank 0, which calls them there and waits for them.
    """

    placement: Placement
    listeners: Sequence[Listener] = ()

    def train(self, experiment: Experiment, storage: Storage, listener: Listener, extent: Extent = WHOLE) -> None:
        """Train there, as `Place` says; every worker must see the storage."""
        placement, use_gpu = self.placement, uses_gpu(self.placement)
        experiment = as_begun(experiment, storage, "cuda" if use_gpu else "cpu")
        samplers = start_samplers(
            experiment.source,
            experiment.episodes,
            experiment.seed,
            count=placement.samplers,
            nodes=samplers_on(placement.samplers_on, use_gpu=use_gpu),
            verify=placement.verify,
        )
        coordinator = _coordinator_here()
        config = {
            "experiment": experiment.to_json(),
            "folder": str(Path.cwd()),
            "fingerprint": experiment.source.fingerprint,
            "verify": placement.verify,
            "storage": storage.root,
            "use_gpu": use_gpu,
            "data_on": placement.data_on,
            "samplers": samplers,
            "coordinator": coordinator,
            "listeners": list(self.listeners),
            "judge": extent.judge,
            "until": extent.until,
            "profile": extent.profile,
        }
        try:
            supervisor = Supervisor(coordinator, listener, placement, samplers)
            supervisor.run(lambda: _FitThread.started(config, placement), extent.should_stop)
        finally:
            listener.close()
            for actor in (*samplers, coordinator):
                ray.kill(actor)
        if extent.judge and not storage.exists(RESULT):
            raise RunFailed(f"Ray Train ended without a result, and no worker said why; Ray's own logs: {ray_logs()}")


def _coordinator_here() -> Any:
    """A coordinator on the driver's own node, so that it is there as long as the driver is."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return remote(Coordinator).remote()


class _Trainer(DataParallelTrainer):  # type: ignore[misc]  # Ray has no types
    """Ray Train's own, without what feeds workers from Ray Data: a process that takes seconds, and that nobody asks."""

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if type(each).__name__ != "DatasetsCallback"]


class _FitThread(threading.Thread):
    """Ray Train's `fit` in a thread, so that the main thread can display and hear signals."""

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

    def _trainer(self, folder: str) -> DataParallelTrainer:
        placement, use_gpu = self._placement, self._config["use_gpu"]
        fewest, most = placement.workers.fewest, placement.workers.most
        return _Trainer(
            train_worker,
            train_loop_config=self._config,
            # The supervisor below finds out who hangs; the collectives of the others have to wait for that.
            backend_config=MeetingConfig(
                timeout_s=int(2 * placement.hang_timeout_s + 60),
                use_gpu=use_gpu,
                coordinator=self._config["coordinator"],
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
