"""Whether what `LoRA` adds to layers reaches what a network computes."""

from dataclasses import replace
from typing import Any

import torch

from metaray.algorithms.context import Context
from metaray.data.names import some
from metaray.episodes.inputs import Inputs
from metaray.errors import InputError
from metaray.models.lora import LoRALinear
from metaray.models.model import trainable
from metaray.models.state import undone

SHOWN = 4


def check_low_rank(context: Context, x: Inputs) -> None:
    """Refuse low-rank factors in layers that no forward pass calls, neither in training nor when judged.

    Args:
        context: Circumstances of any call.
        x: A batch that the network takes.

    Raises:
        InputError: Naming the layers.
    """
    network = context.network
    waiting = {layer: name for name, layer in network.named_modules() if isinstance(layer, LoRALinear)}
    if not waiting:
        return

    def called(layer: Any, _inputs: Any) -> None:
        waiting.pop(layer, None)

    hooks = [layer.register_forward_pre_hook(called) for layer in waiting]
    try:
        for training in (True, False):
            with torch.no_grad(), undone(network):
                replace(context, training=training).forward(dict(trainable(network)), x)
    finally:
        for hook in hooks:
            hook.remove()
    if waiting:
        raise InputError(
            f"lora: no forward pass calls {some([repr(name) for name in waiting.values()], SHOWN)}: the network has no "
            "use for such a layer, or computes with its weights by itself, so that what is added to it would change "
            "nothing. Name other targets, or call the layer"
        )
