"""What Adam, AdamW and SGD have in common."""

from typing import ClassVar

from pydantic import Field

from metaray.optimizers.outer_optimizer import Beta, OuterOptimizer


class Classic(OuterOptimizer):
    """Adam, AdamW or SGD. Each has the other ones' fields, so that a search over kinds may go over them, too.

    Attributes:
        momentum: Momentum of sgd, from 0 to below 1.
        nesterov: Whether sgd takes Nesterov's momentum instead of the heavy ball's (Sutskever et al. 2013).
        betas: Decay of the moments' running means in adam and adamw.
    """

    left_out_of_json: ClassVar[tuple[str, ...]] = ("groups", "nesterov")

    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
