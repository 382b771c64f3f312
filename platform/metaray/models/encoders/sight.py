"""The images that an image encoder was trained on: their size, their normalisation, and the filter that resized them.

A folder says so in `preprocessor_config.json` (Hugging Face), or in the `pretrained_cfg` of its `config.json` (timm).
Where neither is there, images are normalised as the usual ImageNet networks have them.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from metaray.config import Config
from metaray.data.encoder_folder import PREPARATION as PREPARATION
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing, Resample
from metaray.errors import InputError

Three = tuple[float, float, float]

USUAL_MEAN: Three = (0.485, 0.456, 0.406)
USUAL_STD: Three = (0.229, 0.224, 0.225)
USUAL_SIDE = 224
MOST_PIXELS = 1 << 14
FILTERS: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Filters of a resize by Pillow's numbers, which files have."""
WARPED_FROM = 384
"""Side in pixels from which on the whole image is used instead of a central part of it (as ConvNeXt does)."""
UNKNOWN = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_crop_margin")
ROUNDED = 1e-3


class Sight(Config):
    """The colour images that an encoder takes: their size and normalisation.

    Attributes:
        height: Height in pixels; None if the encoder takes images of any size.
        width: Width in pixels; None if the encoder takes images of any size.
        shortest: Length in pixels to which the shorter side is resized before height x width pixels are cut out of the
            middle; None resizes the image to height x width directly.
        resample: Resampling filter for resizing.
        mean: Mean of each channel, for pixels in 0 .. 1.
        std: Standard deviation of each channel, for pixels in 0 .. 1.
    """

    height: int | None = Field(default=None, gt=0, le=MOST_PIXELS)
    width: int | None = Field(default=None, gt=0, le=MOST_PIXELS)
    shortest: int | None = Field(default=None, gt=0, le=MOST_PIXELS)
    resample: Resample = "bilinear"
    mean: Three = USUAL_MEAN
    std: Three = USUAL_STD

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height {self.height} and width {self.width}: give both, or neither")
        if self.shortest is not None and (self.size is None or self.shortest < max(self.size)):
            raise ValueError(f"of a shorter side of {self.shortest} pixels {self.size} can't be cut out")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {min(self.std)}")
        return self

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width); None for any."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    @property
    def preprocessing(self) -> ImagePreprocessing:
        """The preprocessing that turns images into what the encoder was trained on."""
        height, width = self.size or (USUAL_SIDE, USUAL_SIDE)
        return ImagePreprocessing(
            height=height,
            width=width,
            mode="RGB",
            resample=self.resample,
            mean=self.mean,
            std=self.std,
            shortest=self.shortest,
        )

    @classmethod
    def read(cls, configuration: Mapping[str, Any], preparation: Mapping[str, Any]) -> Self:
        """Read the description from the files of a folder.

        Args:
            configuration: Contents of `config.json`.
            preparation: Contents of `preprocessor_config.json`; empty if there is none.

        Raises:
            InputError: If the files ask for something unsupported, or are inconsistent.
        """
        if preparation:
            return cls.parse(_of_a_processor(preparation), where=PREPARATION)
        found = configuration.get("pretrained_cfg")
        if isinstance(found, Mapping):
            return cls.parse(_of_timm(found), where="config.json: pretrained_cfg")
        return cls()

    def check(self, preprocessing: Preprocessing) -> ImagePreprocessing:
        """Check that the preprocessing of a source is that of images, and return it.

        Raises:
            InputError: If it is not.
        """
        if not isinstance(preprocessing, ImagePreprocessing):
            raise InputError(
                f"the encoder takes images, but the source's preprocessing is {preprocessing.kind!r}: `metaray data "
                "import images FOLDER --encoder ENCODER` makes a store of such"
            )
        return preprocessing


def _of_a_processor(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, by the file of Hugging Face's image processors."""
    for name in UNKNOWN:
        if found.get(name):
            raise InputError(f"{PREPARATION}: {name} can't be done here")
    factor = found.get("rescale_factor", 1 / 255)
    if not found.get("do_rescale", True) or not isinstance(factor, int | float) or abs(255 * factor - 1) > ROUNDED:
        raise InputError(f"{PREPARATION}: pixels become numbers in 0 .. 1 here, not {factor!r} times 0 .. 255")
    fields: dict[str, Any] = {"resample": _filter(found.get("resample", 2))}
    if found.get("do_normalize", True):
        fields["mean"] = _three(found.get("image_mean", USUAL_MEAN))
        fields["std"] = _three(found.get("image_std", USUAL_STD))
    else:
        fields |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    if found.get("do_resize", True):
        fields |= _sides(found)
    return fields


def _sides(found: Mapping[str, Any]) -> dict[str, Any]:
    """Height, width and shorter side."""
    size, crop = found.get("size"), found.get("crop_size")
    if size is None:
        return {}
    exact = _pair(size)
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    share = found.get("crop_pct")
    if share is not None and (shortest is not None or exact is not None):
        side = shortest if shortest is not None else exact[0] if exact else 0
        if not isinstance(share, int | float) or not 0 < share <= 1 or type(side) is not int:
            raise InputError(f"{PREPARATION}: crop_pct {share!r} of size {size!r} is no part of an image")
        rest = {} if side >= WARPED_FROM else {"shortest": int(side / share)}
        return {"height": side, "width": side, **rest}
    cut = _pair(crop) if found.get("do_center_crop", crop is not None) else None
    if exact is not None and cut in (None, exact):
        return {"height": exact[0], "width": exact[1]}
    if shortest is not None and cut is not None:
        return {"height": cut[0], "width": cut[1], "shortest": shortest}
    raise InputError(
        f"{PREPARATION}: size {size!r} and crop_size {crop!r} do not make images of one size; give size as a number or "
        'as {"height", "width"}, or as {"shortest_edge"} with a crop_size'
    )


def _of_timm(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, by what timm's models have."""
    fields: dict[str, Any] = {}
    if "interpolation" in found:
        fields["resample"] = found["interpolation"]
    for name in ("mean", "std"):
        if name in found:
            fields[name] = _three(found[name])
    if (size := found.get("input_size")) is None:
        return fields
    if not isinstance(size, list | tuple) or len(size) != 3 or any(type(side) is not int or side < 1 for side in size):
        raise InputError(f"config.json: input_size must be channels, height and width (got {size!r})")
    fields |= {"height": size[1], "width": size[2]}
    share, mode = found.get("crop_pct", 1), found.get("crop_mode") or "center"
    if not isinstance(share, int | float) or not 0 < share <= 1 or mode not in ("center", "squash"):
        raise InputError(f"config.json: crop_pct {share!r} with crop_mode {mode!r} can't be done here")
    return fields if mode == "squash" else fields | {"shortest": int(max(size[1:]) / share)}


def _filter(number: Any) -> Resample:
    if type(number) is not int or number not in FILTERS:
        raise InputError(f"{PREPARATION}: resample is one of {', '.join(map(str, FILTERS))} (got {number!r})")
    return FILTERS[number]


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of what files say of a size; None where they say something else."""
    if type(size) is int:
        return size, size
    if isinstance(size, Mapping) and size.keys() == {"height", "width"}:
        size = [size["height"], size["width"]]
    if isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size):
        return size[0], size[1]
    return None


def _three(values: Any) -> Any:
    """One number a channel; one for all is such three times."""
    return list(values) * 3 if isinstance(values, list | tuple) and len(values) == 1 else values
