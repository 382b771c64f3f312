"""Two ranks on one device: what each of the two processes does."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from jobs.benchmarks.gpu.bits import after
from jobs.benchmarks.gpu.section import Setting
from jobs.benchmarks.ranks import part
from metaray.experiment.experiment import Experiment
from metaray.training.device import set_execution
from metaray.training.outer_loop import initial_state
from metaray.training.reduction import GroupReducer, TreeNode

Way = Literal["nccl", "gloo", "gloo by way of the host"]
TIMEOUT_S = 60.0


class ByHost(GroupReducer):
    """Carries buffers over the host's memory. What is added up there has the bits that it would have on the device."""

    def sum_(self, buffer: Tensor) -> Tensor:
        """One all-reduce of a copy."""
        return buffer.copy_(super().sum_(buffer.cpu()))

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        """The tree's root, back on the device."""
        values = [node.value for node in nodes if node.value is not None]
        host = [node._replace(value=None if node.value is None else node.value.cpu()) for node in nodes]
        return super().join(host, count).to(values[0].device)


def rank_main(rank: int, folder: str, way: Way, experiment_json: str, device_type: str) -> None:
    """Train as one of two ranks, and leave the digest in the folder."""
    experiment, device = Experiment.from_json(experiment_json), torch.device(device_type)
    set_execution(experiment, device)
    dist.init_process_group(
        "nccl" if way == "nccl" else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    reducer = ByHost() if way == "gloo by way of the host" else GroupReducer()
    setting = Setting(device, Path(folder))
    digest = after(experiment, initial_state(experiment, device), setting, reducer)
    (Path(folder) / f"{rank}.sha256").write_text(digest)
    part()
