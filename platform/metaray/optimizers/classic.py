"""What Adam, AdamW and SGD have in common."""

from typing import ClassVar

from pydantic import Field

from metaray.optimizers.outer_optimizer import Beta, OuterOptimizer


class Classic(OuterOptimizer):
    """Base class of Adam, AdamW and SGD; each has the fields of all, so that a search may go over kinds.

    Attributes:
        momentum: Momentum of SGD, from 0 to below 1.
        nesterov: Whether SGD takes Nesterov's momentum instead of heavy-ball momentum (Sutskever et al. 2013).
        betas: Decay rates of the running means of the moments in Adam and AdamW.
    """

    left_out_of_json: ClassVar[tuple[str, ...]] = ("groups", "nesterov")

    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
