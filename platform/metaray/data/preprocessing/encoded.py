"""Inputs that a pretrained encoder made vectors of: stores hold these, learners the encoder and the raw form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from metaray.data.preprocessing.image import ImagePreprocessing
from metaray.data.preprocessing.preprocessing import Preprocessing, RawInputs
from metaray.data.preprocessing.text import TextPreprocessing
from metaray.data.preprocessing.vector import VectorPreprocessing
from metaray.data.ragged import Compact
from metaray.errors import InputError
from metaray.imports import paths_in, reads_kind, trust_of, writes_kind
from metaray.tasks.column import Column
from metaray.trust import require_trusted

if TYPE_CHECKING:
    from torch import Tensor

RAW: dict[str, type[Preprocessing]] = {
    "image": ImagePreprocessing,
    "text": TextPreprocessing,
    "vector": VectorPreprocessing,
}
"""Kinds of preprocessing whose inputs an encoder can turn into vectors."""


class EncodedPreprocessing(Preprocessing):
    """Preprocessing of inputs that a frozen encoder has turned into vectors; see `metaray data embed`.

    Training uses the vectors alone. A learner holds the encoder, too, and sends raw inputs through it.

    Attributes:
        raw: Preprocessing of the raw inputs that the encoder takes.
        encoder: Description of the encoder, see `metaray.models.Encoder`, with the SHA-256 of its weights.
        size: Length of a vector.
    """

    kind: ClassVar[str] = "encoded"
    compared: ClassVar[str | None] = "embeddings"
    baselines: ClassVar[tuple[str, ...]] = ("class_means",)

    raw: Annotated[Preprocessing, reads_kind(RAW, Preprocessing, what="preprocessing"), writes_kind(RAW)]
    encoder: dict[str, JsonValue]
    size: int = Field(gt=0)

    @field_validator("encoder")
    @classmethod
    def _trusted(cls, encoder: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
        for path in paths_in(encoder):
            require_trusted(path, trust_of(info))
        return encoder

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example: (size,)."""
        return (self.size,)

    @property
    def input_word(self) -> str:  # type: ignore[override]  # here it is that of the raw inputs
        """Word for one raw input."""
        return self.raw.input_word

    @property
    def takes_folders(self) -> bool:  # type: ignore[override]
        """Whether the raw inputs may be folders."""
        return self.raw.takes_folders

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table columns of the raw inputs."""
        return self.raw.columns

    def from_cells(self, rows: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> RawInputs:
        """Raw inputs from the cells of a table."""
        return self.raw.from_cells(rows, names, where)

    def example_cells(self, share: float) -> list[Any]:
        """Cells of a valid raw input."""
        return self.raw.example_cells(share)

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Not available: only a learner, which holds the encoder, can read raw inputs.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{self.input_word}s become vectors by an encoder, which a learner holds: give them to one, or to "
            "`metaray data embed` in a store"
        )

    def normalize(self, x: Tensor) -> Tensor:
        """Return the vectors [..., size] unchanged, as float32."""
        return x
