"""Data that live on the device: a store's examples are brought there once, and episodes travel as rows of them."""

import os
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.data.gathering import QUARTER_TURNS
from metaray.data.rows import DATA_ON, ROWS, TURNS
from metaray.data.source import Source
from metaray.errors import InputError, unknown

SHARE = 0.25
"""Share of the device's free memory that examples may take; the rest is for computing."""
BLOCK_BYTES = 2**26
"""So much is brought over at a time."""
TAKEN = {"uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"}
"""Types of numbers of which torch picks rows on every device."""


class Home(NamedTuple):
    """Where the examples of a run are kept while it trains.

    Attributes:
        on_device: Whether they are on the device, so that episodes hold row indices instead of examples.
        note: A sentence for the user; empty if nothing is unusual.
    """

    on_device: bool
    note: str = ""

    @property
    def place(self) -> Literal["host", "device"]:
        """The place in a word: "host" or "device"."""
        return "device" if self.on_device else "host"


def is_wanted(source: Source, device_type: str, data_on: str = "auto") -> bool:
    """Whether a source's examples should be kept on a device of this type, if they fit; by default on a GPU.

    Raises:
        InputError: If that is asked for, but the source's tasks do not take their examples unchanged from a store.
    """
    if data_on not in DATA_ON:
        raise unknown("place of the data", data_on, DATA_ON)
    examples = None if data_on == "host" else source.lasting_examples
    able = examples is not None and examples.dtype.name in TAKEN
    if data_on == "device" and not able:
        raise InputError(
            f"--data-on device: tasks of this source ({source.kind}) are not rows of a class store with examples of "
            "one shape, and cannot live on a device; leave it at --data-on auto"
        )
    return able and (data_on == "device" or device_type != "cpu")


def bring_home(source: Source, device: torch.device, data_on: str = "auto") -> Home:
    """Copy the examples to the device, if wanted and if they take no more than `SHARE` of its free memory."""
    if not is_wanted(source, device.type, data_on):
        return Home(False)
    examples, free = source.lasting_examples, free_bytes(device)
    assert examples is not None
    size, whose = mib(examples.nbytes), f"{mib(free)} that the device has free"
    if examples.nbytes > SHARE * free and not lives_on(source, device):
        return Home(False, f"the data ({size}) stay on the host: they would take more than {SHARE:.0%} of the {whose}")
    resident(source, device)
    return Home(True, f"the data ({size}) live on the device: episodes travel as rows of them")


def lives_on(source: Source, device: torch.device) -> bool:
    """Whether this process has copied the source's examples to the device, so that episodes may hold row indices."""
    return source.lasting_examples is not None and (source.fingerprint, str(device)) in _brought()


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


@dataclass(frozen=True)
class Resident:
    """All examples of a store, on a device.

    Attributes:
        examples: Images as [examples, channels, pixels], with the last two axes merged and all axes before merged;
            other inputs as [examples, 1, numbers].
        shape: Shape of one example.
        turned: Source pixel of each pixel for images turned by 0 .. 3 quarters, [4, pixels] int64; only for square
            images.
    """

    examples: Tensor
    shape: tuple[int, ...]
    turned: Tensor | None

    def gather(self, x: dict[str, Tensor]) -> Tensor:
        """Copies [*leading, *shape] of the examples at row indices [*leading], turned as the indices say.

        Args:
            x: Inputs as row indices on the device, in the form of `metaray.data.rows`.
        """
        rows = x[ROWS].reshape(-1)
        if TURNS not in x:
            found = self.examples.index_select(0, rows)
        else:
            assert self.turned is not None, self.shape
            channels = torch.arange(self.examples.shape[1], device=rows.device)[None, :, None]
            pixels = self.turned[x[TURNS].reshape(-1).long()][:, None]
            found = self.examples[rows[:, None, None], channels, pixels]
        return found.view(*x[ROWS].shape, *self.shape)


def resident(source: Source, device: torch.device) -> Resident:
    """The examples of a source on a device; they are copied at first use, and cached by their contents."""
    found = _brought().get((source.fingerprint, str(device)))
    if found is None:
        examples = source.lasting_examples
        assert examples is not None
        while len(_brought()) >= MOST_KEPT:
            _brought().pop(next(iter(_brought())))
        found = _brought()[source.fingerprint, str(device)] = _bring(examples, device)
    return found


MOST_KEPT = 2
"""Number of stores that a process keeps on its devices: two, if it evaluates on other data than it trains on."""


@lru_cache(maxsize=1)
def _brought() -> dict[tuple[str, str], Resident]:
    """What this process has on its devices, by fingerprint and device."""
    return {}


def _bring(examples: NDArray[Any], device: torch.device) -> Resident:
    shape = examples.shape[1:]
    image = len(shape) >= 2
    pixels = prod(shape[-2:]) if image else prod(shape)
    flat = examples.reshape(len(examples), -1, pixels) if examples.size else examples.reshape(len(examples), 1, 0)
    there = torch.empty(flat.shape, dtype=getattr(torch, examples.dtype.name), device=device)
    at_once = max(1, BLOCK_BYTES // max(1, flat[:1].nbytes))
    for start in range(0, len(flat), at_once):
        # Copied on the way: torch takes no array that cannot be written to, as a file's is.
        there[start : start + at_once].copy_(torch.from_numpy(np.array(flat[start : start + at_once])))
    square = image and shape[-1] == shape[-2]
    turned = torch.from_numpy(_turns(shape[-1])).to(device) if square else None
    return Resident(there, shape, turned)


def mib(size_bytes: int) -> str:
    """A number of bytes as text in MiB."""
    return f"{size_bytes / 2**20:,.3g} MiB" if size_bytes < 2**30 else f"{size_bytes / 2**30:,.1f} GiB"


def _turns(side: int) -> NDArray[np.int64]:
    """[4, side * side] where each pixel of a turned image comes from."""
    pixels = np.arange(side * side).reshape(side, side)
    return np.stack([np.rot90(pixels, quarters).reshape(-1) for quarters in range(QUARTER_TURNS)])
