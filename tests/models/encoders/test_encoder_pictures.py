"""From a source's images to those that an encoder was trained on: sizes, colours and numbers, as folders say them."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metaray.config import replace
from metaray.data.preprocessing import RESAMPLING, ImagePreprocessing, Resample
from metaray.errors import InputError
from metaray.models import Encoder
from metaray.models.encoders.pictures import Pictures, resizing
from metaray.models.encoders.sight import USUAL_MEAN, USUAL_STD, Sight
from tests.models.encoders.tiny_images import PREPARATION, pictures, resnet_folder, vit_folder

SIGHT = Sight(height=16, width=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5), resample="bicubic")


def seen(sight: Sight, source: ImagePreprocessing, images: list[Image.Image]) -> Tensor:
    """What the encoder gets of pictures that a source has prepared."""
    found: Tensor = Pictures(sight, source)(source.normalize(torch.from_numpy(np.asarray(source.read(images)))))
    return found


@pytest.mark.parametrize("resample", get_args(Resample))
@pytest.mark.parametrize("sides", [(20, 7), (7, 20), (9, 9), (1, 5), (5, 1)])
def test_one_side_is_resized_as_pillow_does(sides: tuple[int, int], resample: Resample) -> None:
    inputs, outputs = sides
    row = np.random.default_rng(0).random((1, inputs), dtype=np.float32)
    theirs = Image.fromarray(row, mode="F").resize((outputs, 1), RESAMPLING[resample])
    ours = resizing(outputs, inputs, resample) @ torch.from_numpy(row[0])
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs)[0], atol=2e-6)


def test_what_the_encoder_says_is_left_as_it_is() -> None:
    source, images = SIGHT.preprocessing, list(pictures(3))
    assert source == ImagePreprocessing(
        height=16, width=16, mode="RGB", resample="bicubic", mean=SIGHT.mean, std=SIGHT.std
    )
    x = source.normalize(torch.from_numpy(np.asarray(source.read(images))))
    assert torch.equal(Pictures(SIGHT, source)(x), x) and torch.equal(Pictures(SIGHT, None)(x), x)
    assert not Pictures(SIGHT, source).state_dict()


def test_another_normalisation_is_undone() -> None:
    images, plain = list(pictures(3)), SIGHT.preprocessing
    expected = plain.normalize(torch.from_numpy(np.asarray(plain.read(images))))
    for other in (
        replace(plain, mean=(0.0,), std=(1.0,)),
        replace(plain, mean=(0.1, 0.2, 0.3), std=(0.4,)),
        replace(plain, invert=True),
        replace(plain, invert=True, mean=(0.7,), std=(2.0,)),
    ):
        torch.testing.assert_close(seen(SIGHT, other, images), expected, rtol=0, atol=2e-5)


def test_grey_becomes_three_equal_channels() -> None:
    images, grey = list(pictures(2)), replace(SIGHT.preprocessing, mode="L", mean=(0.0,), std=(1.0,))
    pixels = torch.stack([torch.from_numpy(np.asarray(one.convert("L").resize((16, 16), 3)) / 255.0) for one in images])
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (SIGHT.mean, SIGHT.std))
    expected = ((pixels[:, None] - mean) / std).float()
    torch.testing.assert_close(seen(SIGHT, grey, images), expected, rtol=0, atol=1e-5)


def test_another_size_is_resized_on_the_device() -> None:
    """Within a step of 8 bits of what Pillow makes of the same pixels; any size where the encoder takes any."""
    stored = ImagePreprocessing(height=40, width=28, mode="RGB", mean=(0.3,), std=(0.5,))
    images = list(pictures(2, side=50))
    whole = [stored.picture(pixels) for pixels in np.asarray(stored.read(images))]
    theirs = torch.stack(
        [torch.from_numpy(np.asarray(one.resize((16, 16), Image.Resampling.BICUBIC)) / 255.0) for one in whole]
    )
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (SIGHT.mean, SIGHT.std))
    ours = seen(SIGHT, stored, images) * std + mean
    assert float((ours - theirs.permute(0, 3, 1, 2)).abs().max()) < 1.2 / 255
    assert ours.min() >= -1e-6 and ours.max() <= 1 + 1e-6
    assert seen(Sight(), stored, images).shape == (2, 3, 40, 28)


def test_the_middle_is_cut_out() -> None:
    source = ImagePreprocessing(height=16, width=12, mode="RGB", shortest=20, resample="bilinear")
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 90, 3), dtype=np.uint8))
    expected = wide.resize((60, 20), Image.Resampling.BILINEAR).crop((24, 2, 36, 18))
    assert np.array_equal(source.image(wide), np.asarray(expected).transpose(2, 0, 1))
    small = source.picture(source.image(wide))
    assert np.array_equal(source.image(small), source.image(wide)), "what has the size already stays"
    with pytest.raises(InputError, match="image 0 is 2x900: too long to cut its middle out"):
        source.read([Image.new("RGB", (2, 900))])
    with pytest.raises(InputError, match="of a shorter side of 8 pixels 16x12 can't be cut out"):
        replace(source, shortest=8)
    assert "shortest" not in replace(source, shortest=None).model_dump(mode="json")


@pytest.mark.parametrize(
    ("preparation", "sight"),
    [
        ({}, Sight()),
        (PREPARATION, SIGHT),
        ({"size": {"height": 20, "width": 30}}, Sight(height=20, width=30)),
        ({"size": {"shortest_edge": 256}, "crop_size": 224}, Sight(height=224, width=224, shortest=256)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, Sight(height=224, width=224, shortest=256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, Sight(height=384, width=384)),
        ({"size": 64, "do_center_crop": False, "crop_size": 32}, Sight(height=64, width=64)),
        ({"resample": 1}, Sight(resample="lanczos")),
        ({"do_normalize": False}, Sight(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
        ({"do_resize": False, "size": 64}, Sight()),
    ],
)  # fmt: skip
def test_what_preprocessor_configurations_say(preparation: dict[str, Any], sight: Sight) -> None:
    assert Sight.read({}, preparation) == sight


@pytest.mark.parametrize(
    ("preparation", "said"),
    [
        ({"size": {"shortest_edge": 256}}, "do not make images of one size"),
        ({"size": 64, "crop_size": 32, "do_center_crop": True}, "do not make images of one size"),
        ({"size": {"longest_edge": 8}}, "do not make images of one size"),
        ({"size": -3}, "height"),
        ({"size": 10**9}, "height"),
        ({"size": 64, "crop_pct": "all"}, "crop_pct 'all'"),
        ({"resample": 9}, "resample is one of 0, 1, 2, 3, 4, 5 \\(got 9\\)"),
        ({"do_rescale": False}, "pixels become numbers in 0 .. 1 here"),
        ({"rescale_factor": 1}, "not 1 times 0 .. 255"),
        ({"do_pad": True}, "do_pad can't be done here"),
        ({"image_std": [1, 0, 1]}, "std must be positive"),
        ({"image_mean": [0.1, 0.2]}, "mean"),
        ({"image_mean": "grey"}, "mean"),
    ],
)
def test_what_can_not_be_done(preparation: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Sight.read({}, preparation)


def test_what_timm_says() -> None:
    told = {
        "input_size": [3, 96, 96],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "crop_pct": 0.75,
    }
    expected = Sight(height=96, width=96, shortest=128, mean=(0.5,) * 3, std=(0.5,) * 3, resample="bicubic")
    assert Sight.read({"pretrained_cfg": told}, {}) == expected
    squashed = Sight.read({"pretrained_cfg": {**told, "crop_mode": "squash"}}, {})
    assert squashed == replace(expected, shortest=None)
    with pytest.raises(InputError, match="crop_mode 'border' can't be done"):
        Sight.read({"pretrained_cfg": {**told, "crop_mode": "border"}}, {})
    with pytest.raises(InputError, match="input_size must be channels, height and width"):
        Sight.read({"pretrained_cfg": {**told, "input_size": 96}}, {})
    with pytest.raises(InputError, match="unknown value 'cubic'"):
        Sight.read({"pretrained_cfg": {**told, "interpolation": "cubic"}}, {})


def test_folders(tmp_path: Path) -> None:
    """What a folder says decides; where it says nothing, ImageNet's numbers do, and a transformer's own size."""
    plain = Encoder(path=resnet_folder(tmp_path / "plain")).architecture.preprocessing
    assert plain == ImagePreprocessing(
        height=224, width=224, mode="RGB", mean=USUAL_MEAN, std=USUAL_STD, resample="bilinear"
    )
    told = Encoder(path=resnet_folder(tmp_path / "told", preparation=PREPARATION)).architecture.preprocessing
    assert told == SIGHT.preprocessing
    vit = Encoder(path=vit_folder(tmp_path / "vit")).architecture.preprocessing
    assert vit == replace(plain, height=16, width=16)
    (tmp_path / "told" / "preprocessor_config.json").write_text("[1")
    with pytest.raises(InputError, match="preprocessor_config.json"):
        Encoder.parse({"path": str(tmp_path / "told")}, where="model")
