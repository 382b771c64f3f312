"""What baselines compare, as networks that learn nothing: inputs by the preprocessing's own word, and further views."""

from abc import abstractmethod
from typing import Annotated, ClassVar

from torch import Tensor, nn

from metaray.data.preprocessing import PREPROCESSINGS, Preprocessing
from metaray.data.ragged import FeatureShape
from metaray.episodes.inputs import Inputs
from metaray.imports import reads_kind, writes_kind
from metaray.models.model import Model


class Comparing(nn.Module):
    """Base class of the networks through which baselines send inputs before they compare them."""

    @abstractmethod
    def forward(self, x: Inputs) -> Tensor:
        """Map inputs [n, ...] to the vectors [n, numbers] that are compared."""


class Comparison(Comparing):
    """Inputs as vectors whose Euclidean distance is compared; see `Preprocessing.comparable`."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, x: Inputs) -> Tensor:
        """Map inputs [n, ...] to the vectors [n, numbers] that are compared."""
        return self.preprocessing.comparable(x)


class Compared(Model):
    """The model of the baseline. It learns nothing.

    Attributes:
        preprocessing: Preprocessing of the inputs.
    """

    kind: ClassVar[str] = "compared"

    preprocessing: Annotated[
        Preprocessing, reads_kind(PREPROCESSINGS, Preprocessing, what="preprocessing"), writes_kind(PREPROCESSINGS)
    ]

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """The comparison, whatever is asked for."""
        return Comparison(self.preprocessing)
