"""Episodes on their way to a GPU: beside what it computes, not in between."""

from collections.abc import Iterable, Iterator
from functools import cache

import torch

from metaray.episodes.inputs import tensors_of
from metaray.episodes.tensors import TensorEpisode

Chunk = tuple[TensorEpisode, ...]


def moved(chunks: Iterable[Chunk], device: torch.device) -> Iterator[Chunk]:
    """The same chunks; on a GPU they are copied and prepared on a stream of their own.

    The host is a step ahead of the GPU there: what it asks for now would else queue up behind the step that is being
    computed, and then hold up the next. On a CPU there is nothing to do.
    """
    if device.type != "cuda":
        yield from chunks
        return
    beside, waiting = _stream_beside(device), iter(chunks)
    while True:
        with torch.cuda.stream(beside):
            chunk = next(waiting, None)
        if chunk is None:
            return
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(beside)
        for episode in chunk:
            for tensor in _tensors(episode):
                # Its memory belongs to the other stream, which must not reuse it before this one is through with it.
                tensor.record_stream(computing)
        yield chunk


def _tensors(episode: TensorEpisode) -> Iterator[torch.Tensor]:
    for side in (episode.support, episode.query):
        yield from tensors_of(side.x)
        yield side.y
    yield episode.seed
    yield episode.classes


@cache
def _stream_beside(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
