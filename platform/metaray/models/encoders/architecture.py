"""The interface of every pretrained architecture: a frozen description, complete by itself, that builds an encoder."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from torch import nn

from metaray.config import Config
from metaray.data.preprocessing import Preprocessing

Pooling = Literal["mean", "cls"]


class Architecture(Config):
    """What a file of weights is for. Its fields are what the file of its configuration says.

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, configuration: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Self | None:
        """The architecture of a folder; None if it is of another kind.

        Args:
            configuration: what its `config.json` holds; empty where there is none.
            shapes: of the tensors in its weights, by name.

        Raises:
            InputError: if it is of this kind, but in a form that this cannot compute.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers that it makes of one input."""

    @abstractmethod
    def build(self, pooling: Pooling, normalized: bool) -> nn.Module:
        """The encoder, whose weights are still to be filled in: nothing random is drawn for them.

        Args:
            pooling: how the vectors of an input's places become one, where there are several.
            normalized: whether that is then brought to length 1.
        """

    @abstractmethod
    def own_name(self, name: str) -> str | None:
        """What `build` calls a tensor of the file; None for those that it has no use for."""

    @abstractmethod
    def check(self, preprocessing: Preprocessing) -> None:
        """Refuse inputs that the weights are not for.

        Raises:
            InputError: saying what it takes and what it gets.
        """
