"""The map from what a source makes of images to what an image encoder was trained on, on the device."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metaray.data.preprocessing import ImagePreprocessing, Resample
from metaray.models.encoders.sight import Sight


class Pictures(nn.Module):
    """Converts normalised images of a source [n, channels, height, width] to encoder inputs [n, 3, height, width].

    The steps are, in order: undo the source's normalisation and inversion, so that pixels are in 0 .. 1 as in the
    original image; repeat a grey channel three times; resize each side to the encoder's size with the encoder's filter;
    normalise as the encoder does. Steps that would change nothing are skipped, so that bits stay the same.

    Args:
        sight: Description of the images that the encoder was trained on.
        source: Preprocessing of the source's images; None if they are already as the encoder takes them.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, sight: Sight, source: ImagePreprocessing | None) -> None:
        super().__init__()
        self.is_grey, self.resized = source is not None and source.channels == 1, False
        self.before: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Identity()
        if source is None:
            return
        size, given = sight.size or (source.height, source.width), (source.height, source.width)
        self.resized = size != given
        undo, do = _undoing(source), _Map.of([(1 / s, -m / s) for m, s in zip(sight.mean, sight.std, strict=True)])
        if self.resized:
            self.before, self.after = _Affine(undo), _Affine(do)
            for name, made, there in zip(("rows", "columns"), size, given, strict=True):
                self.register_buffer(name, resizing(made, there, sight.resample), persistent=False)
        elif source.invert or _wide(source.mean) != sight.mean or _wide(source.std) != sight.std:
            self.before = _Affine(undo.then(do))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.before(x.expand(-1, 3, -1, -1) if self.is_grey else x)
        if self.resized:
            # Some filters swing over the edge of what a picture can be, as Pillow's do, which cuts that off, too.
            x = (self.rows @ x @ self.columns.T).clamp(0, 1)
        found: Tensor = self.after(x)
        return found


class _Map(NamedTuple):
    """x * scale + shift of each of three channels."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def of(cls, channels: Sequence[tuple[float, float]]) -> "_Map":
        """The map of these (scale, shift), one pair a channel."""
        return cls(tuple(scale for scale, _ in channels), tuple(shift for _, shift in channels))

    def then(self, other: "_Map") -> "_Map":
        """Both, one after the other."""
        return self.of([(a * c, b * c + d) for a, b, c, d in zip(*self, *other, strict=True)])


class _Affine(nn.Module):
    """A `_Map` of images [n, 3, height, width]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, what: _Map) -> None:
        super().__init__()
        for name, values in what._asdict().items():
            self.register_buffer(name, torch.tensor(values, device="cpu").view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * self.scale + self.shift


def _undoing(source: ImagePreprocessing) -> _Map:
    """The map from normalised pixels to those of the picture, in 0 .. 1."""
    plain = _Map(_wide(source.std), _wide(source.mean))
    return plain.then(_Map((-1.0,) * 3, (1.0,) * 3)) if source.invert else plain


def _wide(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values


def resizing(outputs: int, inputs: int, resample: Resample) -> Tensor:
    """The matrix [outputs, inputs], float32, that resizes one side as Pillow does, without rounding to 8 bits.

    Each output is the mean of the inputs around its place, weighted by the filter, which is widened by the factor of
    reduction.

    Args:
        outputs: Number of pixels after resizing.
        inputs: Number of pixels before resizing.
        resample: Name of the filter.
    """
    matrix, scale = torch.zeros(outputs, inputs, dtype=torch.float64, device="cpu"), inputs / outputs
    if resample == "nearest":
        places = [min(inputs - 1, int((place + 0.5) * scale)) for place in range(outputs)]
        matrix[range(outputs), places] = 1
        return matrix.float()
    support, weight = KERNELS[resample]
    wide = max(scale, 1.0)
    for place in range(outputs):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - support * wide + 0.5))
        last = min(inputs, int(centre + support * wide + 0.5))
        row = [weight((one - centre + 0.5) / wide) for one in range(first, last)]
        matrix[place, first:last] = torch.tensor(row, dtype=torch.float64, device="cpu") / sum(row)
    return matrix.float()


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def _cubic(x: float) -> float:
    """Keys (1981), with a slope of -1/2 at 1."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


KERNELS: dict[str, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, lambda x: 1.0 if -0.5 < x <= 0.5 else 0.0),
    "bilinear": (1.0, lambda x: max(0.0, 1 - abs(x))),
    "hamming": (1.0, lambda x: _sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if abs(x) < 1 else 0.0),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, lambda x: _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0),
}
"""Half the width of each filter, and the filter."""
