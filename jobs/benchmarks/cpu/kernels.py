"""The convolutions of Conv4 by the layout of images and weights: what oneDNN's own layout of weights would gain."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jobs.benchmarks.cpu.cases import DTYPES, FULL, without_instructions
from jobs.benchmarks.cpu.runs import Job, Setting
from jobs.benchmarks.cpu.turns import Turn, alternated

SECTION, TITLE = "kernels", "layouts of convolutions"
PLAIN = "images and weights as torch has them"
LAST, PACKED = "channels_last", "weights laid out for oneDNN beforehand"
LAST_PACKED = "both"
OTHERS = (LAST, PACKED, LAST_PACKED)
ABOUT = """The forward pass of single convolutions of Conv4, by processor time. Weights in oneDNN's own layout are \
what inference prepares once; in an inner loop each version of the weights is used for one pass forward and one \
backward, so laying them out comes on top of what is timed here, and autograd knows no derivative of it."""


class Layer(NamedTuple):
    """A convolution of 3 x 3 with a border of 1.

    Attributes:
        images: Number of images.
        channels: Channels of an image.
        side: Its height and width, in pixels.
    """

    images: int
    channels: int
    side: int


QUERY, SUPPORT = 75, 5
LAYERS = tuple(
    Layer(images, channels, side)
    for images in (QUERY, SUPPORT)
    for channels, side in ((1, 28), (64, 14), (64, 7), (64, 3))
)


def jobs(setting: Setting) -> Iterator[Job]:
    """A single one."""
    told = {"turns": setting.turns, "seconds": setting.seconds, "size": setting.size._asdict()}
    yield Job(SECTION, TITLE, partial(measured, setting), told)


def measured(setting: Setting) -> dict[str, Any]:
    """Microseconds of each layer, by how it is laid out, in alternating turns.

    Raises:
        RuntimeError: If the results differ.
    """
    torch.set_num_threads(1)
    dtypes = [dtype for dtype in DTYPES if dtype == "float32" or not without_instructions()]
    seconds, found = setting.seconds / (len(LAYERS) * len(dtypes)), {}
    for dtype in dtypes:
        for layer in LAYERS:
            name = f"{layer.images} images of {layer.side} x {layer.side}, {layer.channels} channels, {dtype}"
            ways = computed(layer, setting.size.channels, getattr(torch, dtype))
            turns = {way: _timed(work, seconds / 40) for way, work in ways.items()}
            found[name] = alternated(turns, turns=setting.turns, seconds=seconds)
    return {"us": found}


def computed(layer: Layer, outputs: int, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """The convolution in every layout, each found to give the same.

    Raises:
        RuntimeError: If one does not.
    """
    channels = outputs if layer.channels == FULL.channels else layer.channels
    x = torch.randn(layer.images, channels, layer.side, layer.side).to(dtype)
    w = torch.randn(outputs, channels, 3, 3).to(dtype)
    last_x, last_w = (part.to(memory_format=torch.channels_last) for part in (x, w))
    ways: dict[str, Callable[[], Tensor]] = {
        PLAIN: partial(torch.conv2d, x, w, padding=1),
        LAST: partial(torch.conv2d, last_x, last_w, padding=1),
        PACKED: _packed(x, w),
        LAST_PACKED: _packed(last_x, last_w),
    }
    expected = ways[PLAIN]()
    for way, work in ways.items():
        if not torch.allclose(work().float(), expected.float(), rtol=0.02, atol=0.02 * float(expected.abs().max())):
            raise RuntimeError(f"{way}: another result than with {PLAIN}, of {layer}")
    return ways


def _packed(x: Tensor, w: Tensor) -> Callable[[], Tensor]:
    """With weights in oneDNN's layout for images of this shape, as torch's compiler freezes them."""
    one = [1, 1]
    packed = torch.ops.mkldnn._reorder_convolution_weight(w, one, one, one, 1, list(x.shape))
    found: Callable[[], Tensor] = partial(
        torch.ops.mkldnn._convolution_pointwise, x, packed, None, one, one, one, 1, "none", [], ""
    )
    return found


def _timed(work: Callable[[], Tensor], seconds: float) -> Turn:
    """Microseconds of one call, over so many seconds."""

    def turn() -> float:
        count, started = 0, time.process_time()
        with torch.no_grad():
            while not count or time.process_time() - started < seconds:
                work()
                count += 1
        return (time.process_time() - started) / count * 1e6

    return turn
