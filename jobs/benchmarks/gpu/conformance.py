"""Every algorithm's meta-gradient on the device, against float64 on the CPU."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting, Wrong, skip
from jobs.benchmarks.trials import CPU, PROTOCOLS, TRAINED, Bench, Trial, moved
from metaray.algorithms import ALGORITHMS
from metaray.models import MLP, Conv4, Model

CHUNK = 3
MOST_FLOAT64, MOST_FLOAT32 = 1e-9, 1e-2
LEAST_COSINE, MOST_LOSS = 0.5, 0.15

LOOSE_FLOAT32 = {"reptile": 0.5}
"""Reptile's inner Adam scales the rounding errors of biases before a batch norm up to whole steps."""
NO_COSINE = {"imaml": "its conjugate gradients divide by curvatures that bfloat16 does not resolve"}

ABOUT = f"""The meta-gradient of one episode and of a chunk of {CHUNK}, both batch-norm protocols, an MLP and Conv4, \
over all meta-parameters together. float64: norm of the difference to the CPU's, over the CPU's norm, at most \
{MOST_FLOAT64:g}. float32 against the CPU's float64: at most {MOST_FLOAT32:g} (a kink that rounding tips the other way \
costs up to 1e-3, TF32 several 1e-2), of Reptile {LOOSE_FLOAT32["reptile"]:g}, whose inner Adam scales rounding errors \
of biases before a batch norm up to whole steps. bfloat16: the loss within {MOST_LOSS:g} of float64's, the cosine \
between the gradients at least {LEAST_COSINE:g}, but for iMAML, since {NO_COSINE["imaml"]}."""

Arithmetic = Literal["float32", "bfloat16"]


def cases(setting: Setting) -> Iterator[Case]:
    """Each algorithm x protocol x network x single or chunk; where all is small, the two that differ most."""
    images = (1, 16, 16) if setting.small else (1, 28, 28)
    networks: dict[str, tuple[Model, tuple[int, ...]]] = {
        "MLP": (MLP(hidden=(16,) if setting.small else (64, 64)), (1, 4, 4) if setting.small else images),
        "Conv4": (Conv4(channels=4 if setting.small else 32), images),
    }
    # All algorithms one way before the next way: what a cut leaves out is a way, and no algorithm.
    ways = list(product(("Conv4", "MLP"), reversed(PROTOCOLS), (CHUNK, None)))
    for name, protocol, size in (ways[0], ways[-1]) if setting.small else ways:
        for kind in TRAINED:
            trial = Trial(kind, "classification", protocol)
            how = "a chunk" if size else "single"
            yield Case(f"{kind}, {name}, {protocol}, {how}", partial(compare, trial, networks[name], size, setting))
    for kind in ALGORITHMS.keys() - set(TRAINED):
        yield Case(kind, skip("it has no meta-parameters, so no meta-gradient"))


def compare(trial: Trial, network: tuple[Model, tuple[int, ...]], size: int | None, setting: Setting) -> Values:
    """The differences of one trial.

    Raises:
        Wrong: if one is beyond its bound.
    """
    reference, loss = gradient(trial, network, size, CPU, torch.float64)
    double, _ = gradient(trial, network, size, setting.device, torch.float64)
    single, _ = gradient(trial, network, size, setting.device, torch.float32)
    half, half_loss = gradient(trial, network, size, setting.device, torch.float32, "bfloat16")
    values: Values = {
        "float64": float((double - reference).norm() / reference.norm()),
        "float32": float((single - reference).norm() / reference.norm()),
        "bfloat16 loss": float(((half_loss - loss).abs() / loss.abs()).max()),
        "least bfloat16 cosine": float(torch.dot(half, reference) / half.norm() / reference.norm()),
    }
    bad = beyond(trial.kind, values)
    if bad:
        raise Wrong("beyond its bound: " + ", ".join(bad), values)
    return values


def beyond(kind: str, values: Values) -> list[str]:
    """Which differences are beyond their bounds; those that are no numbers are."""
    most = {
        "float64": MOST_FLOAT64,
        "float32": LOOSE_FLOAT32.get(kind, MOST_FLOAT32),
        "bfloat16 loss": MOST_LOSS,
    }
    bad = [name for name, bound in most.items() if not _number(values[name]) <= bound]
    least = -1.0 if kind in NO_COSINE else LEAST_COSINE
    # A cosine of rounding errors may be a little beyond 1.
    if not least - 1e-6 <= _number(values["least bfloat16 cosine"]):
        bad.append("bfloat16 cosine")
    return bad


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value


def gradient(
    trial: Trial,
    network: tuple[Model, tuple[int, ...]],
    size: int | None,
    device: torch.device,
    dtype: torch.dtype,
    precision: Arithmetic = "float32",
) -> tuple[Tensor, Tensor]:
    """The flat meta-gradient and the losses, as float64 on the CPU.

    Args:
        trial: of which algorithm.
        network: its model, and the shape of its inputs.
        size: episodes of the chunk; None is a single episode.
        device: where to compute.
        dtype: of weights and inputs.
        precision: of the context.
    """
    model, feature = network
    bench = Bench(trial, ways=5, model=model, feature=feature, dtype=dtype, device=device)
    chunk = moved(bench.episode(shots=2, queries=3, size=size), device, dtype)
    context = replace(bench.context, precision=precision, batched=size is not None)
    found = bench.algorithm.meta_gradient(bench.meta, chunk, context)
    flat = torch.cat([found.gradient[name].reshape(-1).to(CPU, torch.float64) for name in bench.meta])
    return flat.detach(), found.outcome.loss.detach().to(CPU, torch.float64)


SECTION = Section("conformance", ABOUT, cases)
