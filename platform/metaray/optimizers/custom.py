"""Any `torch.optim.Optimizer`, by import path."""

import inspect
from typing import Any, ClassVar

import torch
from pydantic import Field, JsonValue, ValidationInfo, field_validator

from metaray.errors import InputError
from metaray.imports import resolve, trust_of
from metaray.optimizers.outer_optimizer import OuterOptimizer
from metaray.users_code import users_code

OURS = {"params": "meta-parameters", "lr": "optimizer.outer_lr", "weight_decay": "optimizer.weight_decay"}
"""Arguments that an optimiser is always given, and the fields that set them."""


class CustomOptimizer(OuterOptimizer):
    """An optimiser class of torch, such as `torch.optim:RAdam`, or of the user's own package.

    The class is called with the parameter groups, `lr` and the `options`, and with `foreach=False` if it accepts that
    argument. Its `step` must not need a closure.

    Attributes:
        path: Import path of the class, as `package.module:Name`.
        options: Further keyword arguments of the class, in JSON types.
    """

    kind: ClassVar[str] = "custom"
    path: str
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _importable(cls, path: str, info: ValidationInfo) -> str:
        resolve(path, trust=trust_of(info))
        return path

    @field_validator("options")
    @classmethod
    def _none_of_ours(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OURS.keys() & options):
            raise ValueError(f"{taken[0]!r} is given by {OURS[taken[0]]}: leave it out here")
        return options

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See `OuterOptimizer.build`.

        Raises:
            InputError: If the class cannot be called so.
        """
        factory: Any = resolve(self.path, trust=("*",))
        arguments: dict[str, Any] = {"lr": self.outer_lr, **self.options}
        try:
            signature = inspect.signature(factory)
            if "foreach" in signature.parameters:
                arguments.setdefault("foreach", False)  # one kernel a tensor, in a fixed order
            signature.bind(groups, **arguments)
        except (TypeError, ValueError) as error:
            named = ", ".join(["parameter groups", *arguments])
            raise InputError(f"optimizer.path: {self.path} can't be called with {named}: {error}") from None
        with users_code(f"optimizer.path: {self.path} cannot be built"):
            found: torch.optim.Optimizer = factory(groups, **arguments)
        return found
