"""How a run spreads over a cluster."""

from dataclasses import dataclass


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
