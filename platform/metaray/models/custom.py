"""Any `nn.Module` of the user's own, by import path."""

import inspect
from pickle import UnpicklingError
from typing import Any, ClassVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator
from safetensors import SafetensorError
from torch import nn

from metaray.data.ragged import FeatureShape
from metaray.errors import InputError
from metaray.imports import resolve, trust_of
from metaray.models.conversion import convert
from metaray.models.model import Model
from metaray.tracebacks import headline, summary, user_frames
from metaray.users_code import lines_of


class Custom(Model):
    """A network class, or a function that returns a network, from the user's own package.

    The class is called with `feature_shape=(...)` (whose first axis is None if inputs are ragged), `outputs=int or
    None` and the `options`. Batch norm layers are converted, see `metaray.models.conversion`. Parameters with
    `requires_grad=False` are neither trained nor adapted.

    Attributes:
        path: Import path of the class or function, as `package.module:Name`.
        options: Further keyword arguments, in JSON types.
    """

    kind: ClassVar[str] = "custom"
    path: str
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _importable(cls, path: str, info: ValidationInfo) -> str:
        resolve(path, trust=trust_of(info))
        return path

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`."""
        factory: Any = resolve(self.path, trust=("*",))
        arguments = {"feature_shape": feature_shape, "outputs": outputs, **self.options}
        try:
            inspect.signature(factory).bind(**arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path} can't be called with {', '.join(arguments)}: {error}") from None
        try:
            network = factory(**arguments)
        except InputError:
            raise
        except (OSError, EOFError, SafetensorError, UnpicklingError) as error:  # of files; where says the user's line
            raise InputError(f"{self.path} cannot be built: {summary(error)}") from error
        except (Exception, SystemExit) as error:
            lines = f"\n{lines_of(error)}" if user_frames(error) else ""
            raise InputError(f"{self.path} cannot be built: {headline(error)}{lines}") from error
        if not isinstance(network, nn.Module):
            raise InputError(f"{self.path} returned {type(network).__name__}, not a torch.nn.Module")
        return convert(network)
