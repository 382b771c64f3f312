"""Embeddings under both protocols of batch norm."""

import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import STATISTICS, split_statistics
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.inputs import NOT_TAKEN, Inputs, not_taken, to_dtype
from metaray.models.batch_norm import Protocol
from metaray.models.model import trainable
from metaray.models.state import undone


def embedding_size(network: nn.Module, task_shape: TaskShape | tuple[int, ...]) -> int:
    """Size of the embedding that the network computes of one input.

    Args:
        network: Network to try.
        task_shape: Shape of the tasks; or the shape of one input, if inputs are plain numbers.

    Raises:
        InputError: If the network cannot take such inputs.
    """
    double = any(parameter.dtype == torch.float64 for parameter in trainable(network).values())
    shape = task_shape if isinstance(task_shape, TaskShape) else TaskShape(task_shape)
    x = to_dtype(shape.probe(2), torch.float64 if double else torch.float32)
    try:
        with torch.no_grad(), undone(network):
            return int(network(x)[0].numel())
    except NOT_TAKEN as error:
        raise not_taken(x, error) from error


def embed_support(theta: Tensors, x: Inputs, context: Context, protocol: Protocol) -> tuple[Tensor, Tensors]:
    """Embeddings [n, embedding] in `loss_dtype`, and under inductive batch norm the statistics for `embed`."""
    if protocol == "transductive":
        return context.forward(theta, x).to(context.loss_dtype), {}
    embedding, statistics = context.forward_recording(theta, x)
    return embedding.to(context.loss_dtype), {STATISTICS + name: value for name, value in statistics.items()}


def embed(theta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
    """Embeddings [n, embedding] in `loss_dtype`.

    Batch norm uses the statistics in `adapted` if there are any, otherwise those of x.
    """
    return context.forward(theta, x, split_statistics(adapted)[1]).to(context.loss_dtype)
