"""An encoder of one's own: any module by its import path, with a file of weights that has its names."""

import inspect
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, JsonValue, ValidationInfo, field_validator
from torch import Tensor, nn

from metaray.data.preprocessing import Preprocessing
from metaray.episodes.inputs import Inputs, count
from metaray.errors import InputError
from metaray.imports import resolve, trust_of
from metaray.models.encoders.architecture import MOST_WIDE, Architecture, Pooling
from metaray.models.encoders.pooling import unit
from metaray.trust import package_of
from metaray.users_code import users_code

NOBODYS = {*sys.stdlib_module_names, "torch", "metaray"}
"""Packages whose functions build no network, but might do anything else with options that somebody wrote: those of
metaray need nobody's trust."""
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


class OwnModule(Architecture):
    """A subclass of `torch.nn.Module`, or a function that returns a module, from a package of the user's own.

    The class is called with the `options` alone; the module takes inputs as the source's preprocessing returns them.
    The weights are those of a safetensors file with the names of the module's `state_dict`. Batch norm layers are
    converted, see `metaray.models.conversion`: frozen ones use the statistics of the file.

    Attributes:
        path: Import path of the class or function, as `package.module:Name`.
        width: Size of the vector that the module makes of one input.
        options: Keyword arguments of the class, in JSON types.
    """

    kind: ClassVar[str] = "module"
    poolings: ClassVar[tuple[Pooling, ...]] = ("mean",)
    is_plain: ClassVar[bool] = False

    path: str
    width: int = Field(gt=0, le=MOST_WIDE)
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _importable(cls, path: str, info: ValidationInfo) -> str:
        found = resolve(path, trust=trust_of(info))
        is_class = isinstance(found, type) and issubclass(found, nn.Module)
        if not is_class and (not inspect.isfunction(found) or package_of(path) in NOBODYS):
            raise ValueError(f"{path!r} is neither a class derived from torch.nn.Module nor a function of one's own")
        return path

    @classmethod
    def read(
        cls,
        configuration: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        preparation: Mapping[str, Any] | None = None,
    ) -> Self | None:
        """See `Architecture.read`: no folder's own word makes it import code."""
        return None

    @property
    def size(self) -> int:
        """See `Architecture.size`."""
        return self.width

    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            InputError: Whatever the user's code raises, with its lines; if it returns no module.
        """
        factory: Any = resolve(self.path, trust=("*",))
        try:
            inspect.signature(factory).bind(**self.options)
        except (TypeError, ValueError) as error:
            told = ", ".join(self.options) or "no options"
            raise InputError(f"{self.path} can't be called with {told}: {error}") from None
        with users_code(f"{self.path} cannot be built"):
            module = factory(**self.options)
        if not isinstance(module, nn.Module):
            raise InputError(f"{self.path} returned {type(module).__name__}, not a torch.nn.Module")
        return OwnNetwork(module, self, normalized)

    def own_names(self, name: str) -> tuple[str, ...]:
        """See `Architecture.own_names`: a converted batch norm counts no batches."""
        return () if name.endswith(RUNNING[-1]) else (f"module.{name}",)

    def is_optional(self, name: str) -> bool:
        """See `Architecture.is_optional`: statistics, which a converted batch norm keeps only if it is frozen."""
        return name.endswith(RUNNING)

    def check(self, preprocessing: Preprocessing) -> None:
        """See `Architecture.check`: what its inputs are, its author knows."""


class OwnNetwork(nn.Module):
    """The encoder: what the preprocessing makes of n inputs to [n, size]. Its tensors are named `module.*`."""

    def __init__(self, module: nn.Module, shape: OwnModule, normalized: bool) -> None:
        super().__init__()
        self.module, self.path, self.size, self.normalized = module, shape.path, shape.size, normalized

    def forward(self, x: Inputs) -> Tensor:
        """See the class."""
        found: Any = self.module(x)
        if not isinstance(found, Tensor) or tuple(found.shape) != (count(x), self.size):
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"{self.path} makes {got} of {count(x)} inputs, not {[count(x), self.size]}")
        return unit(found) if self.normalized else found
