"""How a run spreads over a cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from metaray.data.rows import DATA_ON
from metaray.errors import InputError, unknown

DEVICES = ("auto", "cpu", "cuda")
SAMPLERS_ON = ("any", "cpu", "workers")


@dataclass(frozen=True)
class Workers:
    """A range of numbers of workers, from `fewest` to `most`, according to the room on the cluster."""

    fewest: int
    most: int

    def __post_init__(self) -> None:
        """Check them against each other."""
        if self.fewest > self.most or (self.fewest == 0 and self.most > 0):
            text = f"{self.fewest}:{self.most}"
            raise InputError(f"workers {text!r}: the fewest must be at least 1 and at most the most, as in 1:4")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a number or a range of workers, as in "2" or "1:4".

        Raises:
            InputError: If the text is neither.
        """
        found = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", text)
        if not found:
            raise InputError(f"workers {text!r}: give a number such as 2, or FEWEST:MOST such as 1:4")
        return cls(int(found[1]), int(found[2] or found[1]))

    def __str__(self) -> str:
        return f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"


@dataclass(frozen=True)
class Placement:
    """Workers, samplers and their resources; nothing here changes what a run computes.

    Attributes:
        workers: Number or range of Ray Train workers; 0 trains in the driver's process, without Ray. Elastic if `fewest
            < most`.
        samplers: Number of actors that sample episodes ahead.
        cpus_per_worker: Number of CPUs that each worker reserves; below 1 lets several share a core.
        device: "auto" (a GPU each where there are GPUs), "cpu" or "cuda".
        address: Address of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
        hang_timeout_s: Seconds without progress after which a worker is killed and replaced.
        spread: Whether to place workers on as many nodes as possible instead of as few.
        samplers_on: Nodes where sampler actors may run: "any" node, nodes without GPUs ("cpu"), or nodes where workers
            can run ("workers").
        verify: Whether to compare the data with their fingerprint wherever they are opened, even if that was done
            before.
        data_on: Where examples are kept while a worker trains: on its "device", on the "host", or "auto", which takes a
            GPU if the examples are rows of a store and fit.
    """

    workers: Workers = Workers(0, 0)
    samplers: int = 2
    cpus_per_worker: float = 1.0
    device: str = "auto"
    address: str | None = None
    hang_timeout_s: float = 300.0
    spread: bool = False
    samplers_on: str = "any"
    verify: bool = False
    data_on: str = "auto"

    def __post_init__(self) -> None:
        """Check the fields against one another."""
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        if self.samplers_on not in SAMPLERS_ON:
            raise unknown("place of samplers", self.samplers_on, SAMPLERS_ON)
        if self.data_on not in DATA_ON:
            raise unknown("place of the data", self.data_on, DATA_ON)
        if self.in_process and self.address is not None:
            raise InputError(f"a cluster address ({self.address!r}) needs at least 1 worker: 0 workers use no Ray")

    @property
    def in_process(self) -> bool:
        """Whether the run needs no Ray."""
        return self.workers.most == 0


class ClusterNode(NamedTuple):
    """A node of a Ray cluster.

    Attributes:
        id: Ray's id of the node.
        address: Address of its network interface.
        cpus: Number of CPUs that it declares.
        gpus: Number of GPUs that it declares.
    """

    id: str
    address: str
    cpus: float
    gpus: float = 0.0


def sampler_nodes(where: str, nodes: Sequence[ClusterNode], *, use_gpu: bool) -> list[str] | None:
    """Ids of the nodes that sampler actors are spread over; None leaves the choice to Ray.

    Args:
        where: Nodes where sampler actors may run, as in the placement.
        nodes: Nodes of the cluster.
        use_gpu: Whether workers take a GPU each.

    Raises:
        InputError: If there is no such node.
    """
    if where == "any":
        return None
    if where == "cpu":
        found = [node.id for node in nodes if not node.gpus and node.cpus]
    else:
        found = [node.id for node in nodes if (node.gpus if use_gpu else node.cpus)]
    if not found:
        kind = "without a GPU that has CPUs" if where == "cpu" else "where workers can run"
        raise InputError(f"--samplers-on {where}: none of {len(nodes)} nodes is one {kind}; use --samplers-on any")
    return found
