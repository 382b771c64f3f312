"""`metaray data embed`: a frozen encoder once over a store, in this process or on a Ray cluster."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from metaray.models.encoders.embedding import BATCH, EmbedReport, Made, Run, Task, embed_store, in_this_process
from metaray.models.encoders.encoder import Encoder
from metaray.training.device import choose_device
from metaray.training.placement import Placement

Progress = Callable[[int, int], None]


def embed(
    store: str,
    encoder: Encoder,
    out: Path,
    placement: Placement,
    *,
    batch_size: int = BATCH,
    trust: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed a store by a frozen encoder, in this process or by actors on Ray; see `embed_store`.

    The vectors are the same to the last bit if processors are of one kind, wherever they are computed; an interrupted
    call can be resumed either way.

    Args:
        store: Path or URI of the store. On a cluster of several machines all of them must reach it, and the encoder.
        encoder: The encoder, frozen.
        out: Path of the file to write, on this machine.
        placement: Number of workers, and the resources of each.
        batch_size: Number of examples that the encoder computes at once.
        trust: Packages that the store's preprocessing may come from.
        progress: Function that is called with the numbers of finished and of all examples.

    Raises:
        InputError: If `embed_store` would refuse the call, or the cluster cannot be reached or has no room.
        RunFailed: If anything else goes wrong on the cluster.
    """
    device, run = _place(placement)
    return embed_store(
        store, encoder, out, batch_size=batch_size, device=device, trust=trust, run=run, progress=progress
    )


def _place(placement: Placement) -> tuple[str, Run]:
    """The kind of device, and what makes the batches there."""
    if placement.in_process:
        return choose_device(placement.device).type, in_this_process
    from metaray.distributed.cluster import connect, uses_gpu  # without workers nothing needs Ray
    from metaray.distributed.embedding import embedded_on_ray

    connect(placement)
    device = "cuda" if uses_gpu(placement) else "cpu"

    def run(task: Task, numbers: list[int]) -> Iterator[Made]:
        return embedded_on_ray(task, numbers, replace(placement, device=device))

    return device, run
