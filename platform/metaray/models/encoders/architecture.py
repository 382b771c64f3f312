"""The interface of every pretrained architecture: a frozen description, complete by itself, that builds an encoder."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from torch import nn

from metaray.config import Config
from metaray.data.preprocessing import Preprocessing

Pooling = Literal["mean", "cls", "fc"]

MOST_LAYERS, MOST_WIDE, MOST_NUMBERS = 1000, 1 << 18, 1 << 30
"""Layers, numbers of a vector, and whatever is counted, beyond which a description is nonsense."""


class Architecture(Config):
    """The architecture of a file of weights; its fields are those of the file's configuration.

    Attributes:
        kind: Name of the kind in files.
        poolings: Possible ways to pool an input's vectors into one; the first one is the default.
        is_plain: Whether the network consists only of tensors from the file, so that none need be drawn or allocated.
    """

    kind: ClassVar[str]
    poolings: ClassVar[tuple[Pooling, ...]] = ("mean", "cls")
    is_plain: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def read(
        cls,
        configuration: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        preparation: Mapping[str, Any] | None = None,
    ) -> Self | None:
        """Read the architecture of a folder; None if the folder holds another kind.

        Args:
            configuration: Contents of `config.json`; empty if there is none.
            shapes: Shapes of the tensors among the weights, by name.
            preparation: Contents of `preprocessor_config.json`; empty if there is none.

        Raises:
            InputError: If the folder holds this kind, but in a form that cannot be computed.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """Size of the vector of one input, with the default pooling."""

    def size_of(self, pooling: Pooling) -> int:
        """Size of the vector of one input, with a given pooling."""
        return self.size

    @abstractmethod
    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """Build the encoder without its weights, which are filled in later: no random numbers are drawn for them.

        Args:
            pooling: How the vectors of an input's places are pooled into one, if there are several.
            normalized: Whether to scale the pooled vector to length 1.
            preprocessing: Preprocessing of the inputs; None if inputs are already as the encoder takes them.
        """

    @abstractmethod
    def own_names(self, name: str) -> tuple[str, ...]:
        """The names that `build` gives to a tensor of the file; empty if the network does not use it.

        There are several names if the tensor contains several of the network's tensors, one after the other.
        """

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The preprocessing of the inputs that the weights were trained on, if their folder describes it; else None."""
        return None

    def is_optional(self, name: str) -> bool:
        """Whether only some networks of this architecture use a tensor, given by the name that `build` uses."""
        return False

    @abstractmethod
    def check(self, preprocessing: Preprocessing) -> None:
        """Check that the weights were trained for inputs of this kind.

        Raises:
            InputError: If they were not; the message says what the encoder takes, and what it was given.
        """
