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
    """What a file of weights is for. Its fields are what the file of its configuration says.

    Attributes:
        kind: Its name in files.
        poolings: How it may make one vector of an input; the first is the usual one.
        is_plain: Whether all that it is made of are the tensors of its file, so that none need be drawn or allocated.
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
        """The architecture of a folder; None if it is of another kind.

        Args:
            configuration: What its `config.json` holds; empty where there is none.
            shapes: Shapes of the tensors in its weights, by name.
            preparation: What its `preprocessor_config.json` holds, if there is one.

        Raises:
            InputError: If it is of this kind, but in a form that this cannot compute.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers that it makes of one input by its usual pooling."""

    def size_of(self, pooling: Pooling) -> int:
        """Numbers that it makes of one input by a pooling."""
        return self.size

    @abstractmethod
    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """The encoder, whose weights are still to be filled in: nothing random is drawn for them.

        Args:
            pooling: How the vectors of an input's places become one, where there are several.
            normalized: Whether that is then brought to length 1.
            preprocessing: Preprocessing of the inputs; None where they are as the encoder takes them.
        """

    @abstractmethod
    def own_names(self, name: str) -> tuple[str, ...]:
        """What `build` calls a tensor of the file; none for those that it has no use for.

        Several where it holds as many tensors of equal shapes, one after the other.
        """

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What makes of raw inputs what the weights were trained on, as far as their folder says that; else None."""
        return None

    def is_optional(self, name: str) -> bool:
        """Whether a tensor of the file, by what `build` calls it, is of use to some networks of this shape alone."""
        return False

    @abstractmethod
    def check(self, preprocessing: Preprocessing) -> None:
        """Refuse inputs that the weights are not for.

        Raises:
            InputError: Saying what it takes and what it gets.
        """
