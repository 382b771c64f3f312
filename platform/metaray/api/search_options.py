"""Where and how a search runs."""

from dataclasses import dataclass
from pathlib import Path

from metaray.tracking.promotion import Wish
from metaray.training.placement import Placement, Workers
from metaray.tuning.capacity import Shares


@dataclass(frozen=True)
class SearchOptions:
    """Where and how a search runs; nothing here changes what a trial computes.

    Attributes:
        shares: Resources of each trial; its `gpus` count only if there are GPUs.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        address: Address of a running Ray cluster; None starts a local one, or joins the one named by RAY_ADDRESS.
        hang_timeout_s: Seconds without progress after which a worker of a multi-worker trial is replaced.
        name: Name of the search; None makes a new one.
        storage: Folder or URI of all runs.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        register: Whether to register the winner.
        promote: Whether to make the winner @champion whatever the comparison on meta-val says.
        link_encoder: Whether to keep the winner's frozen encoder in the storage, once for all versions that have it.
        apply: Path of a file to write the winner's experiment to; None writes none.
        verify: Whether to compare the data with their fingerprint wherever they are opened, even if that was done
            before.
    """

    shares: Shares = Shares()  # noqa: RUF009 - frozen
    device: str = "auto"
    address: str | None = None
    hang_timeout_s: float = 300.0
    name: str | None = None
    storage: str = "runs"
    tracking_uri: str | None = None
    register: bool = True
    promote: bool = False
    link_encoder: bool = False
    apply: Path | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        Wish(self.register, self.promote, self.link_encoder)  # refused now, not when all trials are done

    @property
    def trial_placement(self) -> Placement:
        """The placement of each trial: its workers, their resources and device."""
        shares = self.shares
        workers = Workers(shares.workers, shares.workers)
        return Placement(
            workers, shares.samplers, shares.cpus, self.device, None, self.hang_timeout_s, verify=self.verify
        )
