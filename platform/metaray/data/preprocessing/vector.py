"""Vectors of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from metaray.data.preprocessing.preprocessing import Preprocessing, check_normalisation

if TYPE_CHECKING:
    from torch import Tensor


class VectorPreprocessing(Preprocessing):
    """Preprocessing of vectors of numbers: float32, with each feature shifted and scaled.

    Attributes:
        size: Length of a vector.
        mean: Mean subtracted from the features: one number for all, or one for each.
        std: Standard deviation by which the difference is divided: one number for all features, or one for each.
    """

    kind: ClassVar[str] = "vector"

    size: int = Field(gt=0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @model_validator(mode="after")
    def _one_number_a_feature(self) -> VectorPreprocessing:
        check_normalisation(self.mean, self.std, self.size, "features")
        return self

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example: (size,)."""
        return (self.size,)

    def normalize(self, x: Tensor) -> Tensor:
        """Shift and scale vectors [..., size], as float32."""
        import torch

        mean, std = (torch.tensor(values, device=x.device) for values in (self.mean, self.std))
        return (x.to(torch.float32) - mean) / std
