"""How a run spreads over a cluster."""

from dataclasses import dataclass

from metaray.errors import InputError, unknown

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Placement:
    """Workers, samplers and what they may use; nothing here changes what a run computes.

    Attributes:
        workers: Ray Train workers; 0 trains in the driver's process, without Ray.
        samplers: sampler actors.
        cpus_per_worker: what each worker reserves; below 1 lets several share a core.
        device: "auto" (a GPU each where there are GPUs), "cpu" or "cuda".
        address: of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
    """

    workers: int = 0
    samplers: int = 2
    cpus_per_worker: float = 1.0
    device: str = "auto"
    address: str | None = None

    def __post_init__(self) -> None:
        """Check the fields against one another."""
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        if self.workers == 0 and self.address is not None:
            raise InputError(f"a cluster address ({self.address!r}) needs at least 1 worker: 0 workers use no Ray")
