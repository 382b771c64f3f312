"""What algorithms share that learn on top of an embedding network, and bring parameters of their own."""

import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.inner_loop import STATISTICS, split_statistics
from metaray.errors import InputError
from metaray.models.batch_norm import Protocol


def embedding_size(network: nn.Module, feature_shape: tuple[int, ...]) -> int:
    """Numbers in the embedding of one input."""
    with torch.no_grad():
        return int(network(torch.zeros(2, *feature_shape))[0].numel())


def join(network: Tensors, parts: dict[str, Tensors]) -> Tensors:
    """The network's parameters, and those of each part under its prefix.

    Raises:
        InputError: if the network has parameters of such a name itself.
    """
    for prefix in parts:
        taken = [name for name in network if name.startswith(prefix)]
        if taken:
            raise InputError(f"the network has a parameter {taken[0]!r}, but names in {prefix!r} are the algorithm's")
    return network | {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}


def part(meta: Tensors, prefix: str) -> Tensors:
    """The parameters under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}


def without(meta: Tensors, *prefixes: str) -> Tensors:
    """The parameters under none of the prefixes: the network's."""
    return {name: value for name, value in meta.items() if not name.startswith(prefixes)}


def embed_support(theta: Tensors, x: Tensor, context: Context, protocol: Protocol) -> tuple[Tensor, Tensors]:
    """Embeddings [n, embedding] in `loss_dtype`, and under inductive batch norm the statistics for `embed`."""
    if protocol == "transductive":
        return context.forward(theta, x).to(context.loss_dtype), {}
    embedding, statistics = context.forward_recording(theta, x)
    return embedding.to(context.loss_dtype), {STATISTICS + name: value for name, value in statistics.items()}


def embed(theta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
    """Embeddings [n, embedding] in `loss_dtype`, normalised with the statistics in `adapted`, else with those of x."""
    return context.forward(theta, x, split_statistics(adapted)[1]).to(context.loss_dtype)
