"""Static word embeddings: one matrix, a vector a token, and nothing else."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from metaray.data.preprocessing import Preprocessing
from metaray.errors import InputError
from metaray.models.encoders.architecture import Architecture, Pooling
from metaray.models.encoders.pooling import pooled
from metaray.models.encoders.unfilled import Embedding
from metaray.models.encoders.vocabulary import check_vocabulary


class StaticWords(Architecture):
    """A matrix of word embeddings; a text is the mean of its tokens' vectors, in any order.

    Attributes:
        vocabulary: Size of the vocabulary.
        width: Width of the vectors.
    """

    kind: ClassVar[str] = "static_words"

    vocabulary: int = Field(gt=0)
    width: int = Field(gt=0)

    @classmethod
    def read(
        cls,
        configuration: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        preparation: Mapping[str, Any] | None = None,
    ) -> Self | None:
        """See `Architecture.read`: whatever holds one matrix alone."""
        matrices = [shape for shape in shapes.values() if len(shape) == 2]
        if len(shapes) != 1 or len(matrices) != 1:
            return None
        return cls(vocabulary=matrices[0][0], width=matrices[0][1])

    @property
    def size(self) -> int:
        """See `Architecture.size`."""
        return self.width

    def build(self, pooling: Pooling, normalized: bool, preprocessing: Preprocessing | None = None) -> nn.Module:
        """See `Architecture.build`.

        Raises:
            InputError: If the pooling is "cls", which there is no such token for.
        """
        if pooling != "mean":
            raise InputError(f"pooling: static word embeddings have the mean of their tokens alone (got {pooling!r})")
        return StaticNetwork(self, normalized)

    def own_names(self, name: str) -> tuple[str, ...]:
        """See `Architecture.own_names`: whatever it is called."""
        return ("words.weight",)

    def check(self, preprocessing: Preprocessing) -> None:
        """See `Architecture.check`."""
        check_vocabulary(preprocessing, self.vocabulary, None)


class StaticNetwork(nn.Module):
    """The encoder: a dict of `tokens` [n, L] and `mask` [n, L] to [n, width]."""

    def __init__(self, shape: StaticWords, normalized: bool) -> None:
        super().__init__()
        self.words, self.normalized = Embedding(shape.vocabulary, shape.width), normalized

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """See the class."""
        return pooled(self.words(x["tokens"]), x["mask"], "mean", normalized=self.normalized)
