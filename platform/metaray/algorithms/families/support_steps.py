"""Inner steps on a support set, of all of a network or of what adapts in it."""

from collections.abc import Sequence

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING
from metaray.algorithms.families.inner_loop import Rates, descended, support_loss, with_statistics
from metaray.algorithms.families.inner_optimizers import InnerOptimizer
from metaray.algorithms.families.last_layer import last_layer
from metaray.episodes.tensors import Examples
from metaray.models.batch_norm import Protocol


def steps_on_support(
    theta: Tensors,
    rates: Rates,
    support: Examples,
    context: Context,
    *,
    protocol: Protocol,
    optimizer: InnerOptimizer,
    steps: int,
    second_order: bool,
    adapts: Sequence[str],
) -> Tensors:
    """Adapt to one task by inner steps: theta', as `predict_at` takes it.

    If only the last layers adapt, the rest of the network sees the support set once.

    Args:
        theta: Initial values of all parameters of the network.
        rates: Inner learning rates of the parameters that adapt, by name.
        support: Support set of the task.
        context: Circumstances of the call.
        protocol: Batch norm protocol, "inductive" or "transductive".
        optimizer: Optimiser of the inner steps.
        steps: Number of steps.
        second_order: Whether the meta-gradient is differentiated through the inner gradients.
        adapts: Patterns of the parameters that have `rates`.
    """
    last = None if tuple(adapts) == EVERYTHING else last_layer(theta, rates, support, context, protocol)
    loss = support_loss(support, context, second_order=second_order) if last is None else last.loss
    found = descended(loss, theta, rates, context, optimizer=optimizer, steps=steps, second_order=second_order)
    if last is None:
        return with_statistics(found, support, context, protocol)
    return {**found, **last.statistics}
