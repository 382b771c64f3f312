"""How a run spreads over a cluster."""

import re
from dataclasses import dataclass
from typing import Self

from metaray.errors import InputError, unknown

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Workers:
    """How many workers may take part: any number from `fewest` to `most`, as the cluster has room."""

    fewest: int
    most: int

    def __post_init__(self) -> None:
        """Check them against each other."""
        if self.fewest > self.most or (self.fewest == 0 and self.most > 0):
            text = f"{self.fewest}:{self.most}"
            raise InputError(f"workers {text!r}: the fewest must be at least 1 and at most the most, as in 1:4")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "2" or "1:4".

        Raises:
            InputError: if it is neither.
        """
        found = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", text)
        if not found:
            raise InputError(f"workers {text!r}: give a number such as 2, or FEWEST:MOST such as 1:4")
        return cls(int(found[1]), int(found[2] or found[1]))

    def __str__(self) -> str:
        return f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"


@dataclass(frozen=True)
class Placement:
    """Workers, samplers and what they may use; nothing here changes what a run computes.

    Attributes:
        workers: Ray Train workers; 0 trains in the driver's process, without Ray. Elastic where `fewest < most`.
        samplers: sampler actors.
        cpus_per_worker: what each worker reserves; below 1 lets several share a core.
        device: "auto" (a GPU each where there are GPUs), "cpu" or "cuda".
        address: of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
        hang_timeout_s: a worker that makes no progress for so long is killed and replaced.
    """

    workers: Workers = Workers(0, 0)
    samplers: int = 2
    cpus_per_worker: float = 1.0
    device: str = "auto"
    address: str | None = None
    hang_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        """Check the fields against one another."""
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        if self.in_process and self.address is not None:
            raise InputError(f"a cluster address ({self.address!r}) needs at least 1 worker: 0 workers use no Ray")

    @property
    def in_process(self) -> bool:
        """Whether the run needs no Ray."""
        return self.workers.most == 0
