"""Augmentation of episodes: what each alteration does, and that it depends on nothing but the episode's seed."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metaray.data import ClassStore
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.episodes.augmentation import Augmentation, normalized
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.errors import InputError

CPU = torch.device("cpu")
RGB = ImagePreprocessing(height=8, width=8, mode="RGB")
GREYS = torch.tensor([0.2989, 0.587, 0.114])
MANY = 4000


def images(count: int = MANY, *, low: int = 0, high: int = 256) -> Tensor:
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.integers(low, high, (count, 3, 8, 8), dtype=np.uint8))


def altered(x: Tensor, *, preprocessing: ImagePreprocessing = RGB, seed: int = 1, **fields: Any) -> Tensor:
    found: Tensor = normalized(preprocessing, x, Augmentation(**fields), "support", [seed])
    return found


def grey(x: Tensor) -> Tensor:
    return (x * GREYS.view(-1, 1, 1)).sum(1, keepdim=True)


FLAT = images(low=100, high=156)
"""So far from black and white that nothing is clamped."""


def factors_of(**fields: Any) -> Tensor:
    """[n, 1, 1, 1] of the one alteration of colours in `fields`."""
    (name,) = fields
    x = FLAT / 255
    centre = {"brightness": 0 * x, "contrast": grey(x).mean((2, 3), keepdim=True), "saturation": grey(x)}[name]
    around = x - centre
    found = (altered(FLAT, **fields) - centre) * around
    return found.sum((1, 2, 3), keepdim=True) / around.square().sum((1, 2, 3), keepdim=True)


EVERYTHING = Augmentation(crop_padding=2, flip=True, brightness=0.4, contrast=0.4, saturation=0, cutout=3)


@pytest.fixture
def batch(tiny_source: ClassStore) -> MetaBatch:
    return sample_meta_batch(tiny_source, EpisodeSpec(ways=3, shots=1, queries=2), "meta-train", 0, range(5))


def test_a_crop_is_a_shift_with_black_margins_uniform_over_all_places() -> None:
    x = images(low=1)
    found = altered(x, crop_padding=2)
    padded = torch.nn.functional.pad(x / 255, (2, 2, 2, 2))
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # [n, 25, 3, 8, 8]
    same = (windows == found[:, None]).flatten(2).all(-1)
    assert (same.sum(1) == 1).all()
    counts = same.sum(0).double()
    expected = MANY / 25
    assert ((counts - expected).square() / expected).sum() < 51.2, "chi-squared of 24 degrees, 99.9 %"


def test_half_of_the_images_are_mirrored() -> None:
    x = images()
    found = altered(x, flip=True)
    kept, mirrored = ((found == other).flatten(1).all(1) for other in (x / 255, x.flip(-1) / 255))
    assert (kept ^ mirrored).all() and abs(mirrored.float().mean() - 0.5) < 0.03


def test_brightness_is_one_factor_an_image_and_stays_in_range() -> None:
    x = images()
    found = altered(x, brightness=0.4)
    factors = factors_of(brightness=0.4)
    assert torch.allclose(found, (x / 255 * factors).clamp(0, 1), atol=1e-5) and found.max() == 1
    assert factors.min() >= 0.6 - 1e-5 and factors.max() <= 1.4 + 1e-5
    assert abs(factors.mean() - 1) < 0.02 and abs(factors.std() - 0.8 / 12**0.5) < 0.01


def test_contrast_keeps_the_mean_grey_and_scales_what_lies_around_it() -> None:
    scaled, found, factors = FLAT / 255, altered(FLAT, contrast=0.4), factors_of(contrast=0.4)
    mean = grey(scaled).mean((2, 3), keepdim=True)
    assert torch.allclose(grey(found).mean((2, 3), keepdim=True), mean, atol=1e-4)
    assert torch.allclose(found, mean + factors * (scaled - mean), atol=1e-5)
    assert 0.6 - 1e-5 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4 + 1e-5


def test_saturation_keeps_each_pixels_grey() -> None:
    scaled, found, factors = FLAT / 255, altered(FLAT, saturation=0.4), factors_of(saturation=0.4)
    assert torch.allclose(grey(found), grey(scaled), atol=1e-4)
    assert torch.allclose(found, grey(scaled) + factors * (scaled - grey(scaled)), atol=1e-5)
    assert 0.6 - 1e-5 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4 + 1e-5


def test_colours_change_in_every_order() -> None:
    x = images()
    found = altered(x, brightness=0.4, contrast=0.4, saturation=0.4)
    factor = {name: factors_of(**{name: 0.4}) for name in ("brightness", "contrast", "saturation")}
    matched = []
    for order in permutations(factor):
        y = x / 255
        for name in order:
            other = {"brightness": 0 * y, "contrast": grey(y).mean((2, 3), keepdim=True), "saturation": grey(y)}[name]
            y = (other + factor[name] * (y - other)).clamp(0, 1)
        matched.append((y - found).abs().flatten(1).amax(1) < 1e-4)
    each = torch.stack(matched)
    assert each.any(0).all()
    # Without clamping all orders are the same, so some images match several.
    alone = each[:, each.sum(0) == 1].sum(1)
    assert alone.sum() > MANY / 5 and alone.min() > alone.sum() / 12


def test_on_grey_images_contrast_works_alike() -> None:
    one = ImagePreprocessing(height=8, width=8)
    x = FLAT[:, :1]
    mean = (x / 255).mean((2, 3), keepdim=True)
    found = altered(x, preprocessing=one, contrast=0.4)
    assert torch.allclose(found, mean + factors_of(contrast=0.4) * (x / 255 - mean), atol=1e-4)


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_is_the_mean_of_the_data_in_a_square_around_any_pixel(side: int) -> None:
    preprocessing = ImagePreprocessing(height=8, width=8, mode="RGB", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    x = images(low=200)
    found = altered(x, preprocessing=preprocessing, cutout=side)
    cut = (found == 0).all(1)
    assert torch.equal(found, torch.where(cut[:, None], 0.0, preprocessing.normalize(x)))
    # A row is hit if the centre is one of `side` rows, of which some lie outside at the border.
    share = cut.float().mean((0, 2))
    expected = [len({c for c in range(8) if c - side // 2 <= row < c - side // 2 + side}) / 8 for row in range(8)]
    assert np.allclose(share, np.array(expected) * np.mean(expected), atol=0.03)


def test_normalisation_comes_after_colours_and_before_cutout() -> None:
    preprocessing = ImagePreprocessing(height=8, width=8, mode="RGB", mean=(0.5,), std=(0.25,))
    plain = altered(images(50), brightness=0.4, crop_padding=1)
    assert torch.allclose(
        altered(images(50), preprocessing=preprocessing, brightness=0.4, crop_padding=1), (plain - 0.5) / 0.25
    )


def test_one_alteration_does_not_change_what_another_draws() -> None:
    x = images(40)
    mirrored = (altered(x, flip=True) != x / 255).flatten(1).any(1)
    cropped = altered(x, crop_padding=2)
    expected = torch.where(mirrored.view(-1, 1, 1, 1), cropped.flip(-1), cropped)
    assert torch.equal(altered(x, crop_padding=2, flip=True), expected)


def test_the_seed_and_the_side_decide_and_nothing_else() -> None:
    x = images(30)
    state = torch.get_rng_state()
    one, again, other = altered(x, flip=True), altered(x, flip=True), altered(x, flip=True, seed=2)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    query = normalized(RGB, x, Augmentation(flip=True), "query", [1])
    assert not torch.equal(query, one)


def chunked(batch: MetaBatch, size: int, source: ClassStore, augmentation: Augmentation | None) -> list[TensorEpisode]:
    """All chunks, each of equal episodes."""
    found = list(chunks(batch, size, CPU, source, "meta-train", augmentation))
    assert all(len(parts) == 1 for parts in found)
    return [parts[0] for parts in found]


def test_a_side_that_is_not_covered_is_only_normalised(batch: MetaBatch, tiny_source: ClassStore) -> None:
    plain = chunked(batch, 1, tiny_source, None)[0]
    for on, same in (("support", (False, True)), ("query", (True, False)), ("both", (False, False))):
        augmentation = Augmentation.parse({"on": on, "crop_padding": 3}, where="test")
        found = chunked(batch, 1, tiny_source, augmentation)[0]
        assert (torch.equal(found.support.x, plain.support.x), torch.equal(found.query.x, plain.query.x)) == same
        assert torch.equal(found.support.y, plain.support.y) and torch.equal(found.query.y, plain.query.y)


@pytest.mark.parametrize("size", [2, 4, 5])
def test_chunks_of_any_size_hold_the_same_bits(batch: MetaBatch, tiny_source: ClassStore, size: int) -> None:
    single = [chunk.query.x for chunk in chunked(batch, 1, tiny_source, EVERYTHING)]
    found = [chunk.query.x for chunk in chunked(batch, size, tiny_source, EVERYTHING)]
    # The last may be a single one, with its leading axis all the same.
    assert torch.equal(torch.stack(single), torch.cat(found))


def test_episodes_are_altered_the_same_wherever_they_stand(batch: MetaBatch, tiny_source: ClassStore) -> None:
    whole = chunked(batch, 1, tiny_source, EVERYTHING)
    last = sample_meta_batch(tiny_source, EpisodeSpec(ways=3, shots=1, queries=2), "meta-train", 0, [4])
    assert torch.equal(chunked(last, 1, tiny_source, EVERYTHING)[0].support.x, whole[4].support.x)


def test_the_batch_is_left_alone(batch: MetaBatch, tiny_source: ClassStore) -> None:
    before = batch.stacks[0].task.support.x.copy()
    assert all(chunk.support.x.is_contiguous() for chunk in chunked(batch, 2, tiny_source, EVERYTHING))
    assert np.array_equal(batch.stacks[0].task.support.x, before)


@pytest.mark.parametrize(
    ("fields", "preprocessing", "message"),
    [
        ({"flip": True}, VectorPreprocessing(size=3), "another kind \\(vector\\)"),
        ({"crop_padding": 8}, RGB, "augmentation.crop_padding=8 would leave nothing .* at most 7"),
        ({"cutout": 9}, RGB, "augmentation.cutout=9"),
        ({"saturation": 0.5}, ImagePreprocessing(height=8, width=8), "images in grey"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], preprocessing: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**fields).check(preprocessing)


@pytest.mark.parametrize("fields", [{}, {"on": "query"}])
def test_one_that_alters_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="alters nothing: set one of crop_padding, flip"):
        Augmentation.parse(fields, where="augmentation")


def test_its_shape_and_type_are_those_of_the_images() -> None:
    x = images(6).view(2, 3, 3, 8, 8)
    found = normalized(RGB, x, Augmentation(cutout=2, contrast=0.5), "query", [7, 8])
    assert found.shape == x.shape and found.dtype == torch.float32
