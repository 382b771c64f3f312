"""Adam, AdamW and SGD by name, in one class, as recipes may write them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from metaray.config import Config
from metaray.errors import InputError
from metaray.imports import reads_kind, writes_kind
from metaray.optimizers import OPTIMIZERS, Adam, OuterOptimizer
from metaray.optimizers.outer_optimizer import Beta
from metaray.optimizers.stepping import clip_ as clip_
from metaray.optimizers.stepping import global_norm as global_norm


class Optimizer(Config):
    """A short form of `Adam(...)`, `AdamW(...)` or `SGD(...)`, into which an experiment converts it.

    Attributes:
        kind: "adam", "adamw" or "sgd"; the other fields are those of these classes.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    outer_lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "linear", "cosine", "step"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)
    decay: float = Field(default=0.5, gt=0, le=1)
    decay_every: int = Field(default=2000, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0)

    def part(self) -> OuterOptimizer:
        """The optimiser that this short form stands for.

        Raises:
            InputError: If this is a subclass of `Optimizer`, whose own fields would be lost.
        """
        mine = type(self)
        if mine is not Optimizer:
            raise InputError(
                f"{mine.__module__}:{mine.__qualname__} is a subclass of Optimizer, and what it adds would be lost: "
                "derive an optimiser of your own from metaray.optimizers.OuterOptimizer"
            )
        return OPTIMIZERS[self.kind].parse(self.model_dump(exclude={"kind"}), where=f"optimizer {self.kind}")


def _by_name(value: Any) -> Any:
    if isinstance(value, Optimizer):
        return value.part()
    return {"kind": Adam.kind, **value} if isinstance(value, Mapping) else value


OptimizerField = Annotated[
    OuterOptimizer,
    reads_kind(OPTIMIZERS, OuterOptimizer, what="optimizer"),
    writes_kind(OPTIMIZERS),
    BeforeValidator(_by_name),
]
"""An optimiser by kind; Adam where none is said."""
