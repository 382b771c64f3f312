"""Any `nn.Module` of the user's own, by import path."""

import inspect
from typing import Any, ClassVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator
from torch import nn

from metaray.errors import InputError
from metaray.imports import resolve, trust_of
from metaray.models.batch_norm import without_running_statistics
from metaray.models.model import Model


class Custom(Model):
    """A network class (or function that returns one) from the user's own package.

    It is called with `feature_shape=(...)`, `outputs=int or None` and the `options`. Batch norm layers with running
    statistics are replaced by `EpisodicBatchNorm`.

    Attributes:
        path: `package.module:Name`.
        options: further keyword arguments, in JSON types.
    """

    kind: ClassVar[str] = "custom"
    path: str
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _importable(cls, path: str, info: ValidationInfo) -> str:
        resolve(path, trust=trust_of(info))
        return path

    def build(self, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        factory: Any = resolve(self.path, trust=("*",))
        arguments = {"feature_shape": feature_shape, "outputs": outputs, **self.options}
        try:
            inspect.signature(factory).bind(**arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path} can't be called with {', '.join(arguments)}: {error}") from None
        network = factory(**arguments)
        if not isinstance(network, nn.Module):
            raise InputError(f"{self.path} returned {type(network).__name__}, not a torch.nn.Module")
        return without_running_statistics(network)
