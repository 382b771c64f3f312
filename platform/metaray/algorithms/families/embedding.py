"""Embeddings under both protocols of batch norm."""

import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import STATISTICS, split_statistics
from metaray.errors import InputError
from metaray.models.batch_norm import Protocol
from metaray.models.model import trainable
from metaray.models.state import undone


def embedding_size(network: nn.Module, feature_shape: tuple[int, ...]) -> int:
    """Numbers that the network makes of one input.

    Raises:
        InputError: if the network cannot take such inputs.
    """
    double = any(parameter.dtype == torch.float64 for parameter in trainable(network).values())
    x = torch.zeros(2, *feature_shape, dtype=torch.float64 if double else torch.float32)
    try:
        with torch.no_grad(), undone(network):
            return int(network(x)[0].numel())
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the model cannot take a batch of shape {tuple(x.shape)} from this source: {error}"
        ) from error


def embed_support(theta: Tensors, x: Tensor, context: Context, protocol: Protocol) -> tuple[Tensor, Tensors]:
    """Embeddings [n, embedding] in `loss_dtype`, and under inductive batch norm the statistics for `embed`."""
    if protocol == "transductive":
        return context.forward(theta, x).to(context.loss_dtype), {}
    embedding, statistics = context.forward_recording(theta, x)
    return embedding.to(context.loss_dtype), {STATISTICS + name: value for name, value in statistics.items()}


def embed(theta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
    """Embeddings [n, embedding] in `loss_dtype`, normalised with the statistics in `adapted`, else with those of x."""
    return context.forward(theta, x, split_statistics(adapted)[1]).to(context.loss_dtype)
