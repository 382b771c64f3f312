"""Two warmed processes that share the surfaces."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from tests.fuzz.runner import Report, Surface, fuzz
from tests.fuzz.surfaces import surfaces

_warm: dict[str, Surface] = {}


def run(seed: int, cases: range, only: list[str] | None) -> list[Report]:
    """Fuzz each surface, two at a time, each in a process that has imported and made all that it needs."""
    with tempfile.TemporaryDirectory() as scratch:
        names = [surface.name for surface in surfaces(Path(scratch))]
    chosen = [name for name in names if not only or name in only]
    if unknown := set(only or ()) - set(names):
        raise SystemExit(f"no surface {min(unknown)!r}; there are: {', '.join(names)}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_warm_up) as pool:
        return list(pool.map(_one, chosen, [seed] * len(chosen), [cases] * len(chosen)))


def _warm_up() -> None:
    torch.set_num_threads(1)
    _warm.update({surface.name: surface for surface in surfaces(Path(tempfile.mkdtemp()))})


def _one(name: str, seed: int, cases: range) -> Report:
    return fuzz(_warm[name], seed, cases)
