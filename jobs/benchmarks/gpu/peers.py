"""JAX on the same network and episodes: what a compiler that sees the whole meta-gradient makes of it."""

import os
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.benchmarks.gpu.ceilings import seconds_of
from jobs.benchmarks.gpu.costs import given_to
from jobs.benchmarks.gpu.experiments import experiment_of, networks
from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting, Skipped, Wrong
from jobs.benchmarks.trials import CPU
from metaray.algorithms import MAML
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.experiment.experiment import Experiment
from metaray.training.outer_loop import context_of, initial_state

RATE = 0.05
BOUNDS = {1: {"loss off by": 1e-4, "gradient off by": 1e-2}, 5: {"loss off by": 1e-2, "gradient off by": 0.2}}
"""By inner steps, each of which makes rounding errors larger."""

ABOUT = f"""MAML of Conv4 in JAX, jit(grad(vmap)) over the whole meta-batch, with metaray's weights and episodes: the \
meta-gradient alone, without optimiser or copies, in its own float32 and in TF32, JAX's default there. First, in \
float32, the losses must equal those of metaray on the CPU to {BOUNDS[1]["loss off by"]:g} of their norm after one \
inner step and {BOUNDS[5]["loss off by"]:g} after five, the gradients to {BOUNDS[1]["gradient off by"]:g} and \
{BOUNDS[5]["gradient off by"]:g}: each step makes rounding errors larger. Compiling comes on top, once."""


def cases(setting: Setting) -> Iterator[Case]:
    """One and five inner steps, each in float32 and TF32."""
    for steps in (1,) if setting.small else (1, 5):
        for precision in ("float32",) if setting.small else ("float32", "tensorfloat32"):
            name = f"MAML, {steps} {'step' if steps == 1 else 'steps'}, {precision}"
            yield Case(name, partial(against_jax, steps, precision, setting))


def against_jax(steps: int, precision: str, setting: Setting) -> Values:
    """JAX's time; in float32 the same losses and gradient first.

    Raises:
        Wrong: if they are others.
    """
    if find_spec("jax") is None:
        raise Skipped("JAX is not installed here")
    # Both want the device, and JAX would take most of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not setting.on_gpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    from jobs.benchmarks.gpu import jax_maml

    network = networks(setting)["Conv4"]
    algorithm = MAML(inner_lr=RATE, inner_steps=steps, batch_norm="transductive")
    experiment = experiment_of(setting, network, algorithm)
    batch = given_to(network, setting)[0].batch
    # On the CPU: a reference that shares no kernel with what is compared.
    (chunk,) = next(chunks(batch, network.meta_batch_size, CPU, experiment.source, "meta-train"))
    initial = {name: t.detach().numpy() for name, t in initial_state(experiment, CPU).meta.items()}
    arrays = tuple(tensor.numpy() for side in (chunk.support, chunk.query) for tensor in side)
    started = time.perf_counter()
    loss = partial(jax_maml.query_loss, rate=RATE, steps=steps)
    theirs = jax_maml.MetaGradient(initial, arrays, loss=loss, precision=precision)
    values: Values = {"device": jax_maml.device(), "compiled in s": time.perf_counter() - started}
    if precision == "float32":
        values |= same(theirs, experiment, chunk, BOUNDS[steps], values)
    milliseconds = 1e3 * seconds_of(theirs.step, setting)
    return values | {"ms a gradient": milliseconds, "episodes/s": 1e3 * network.meta_batch_size / milliseconds}


def same(theirs: Any, experiment: Experiment, chunk: TensorEpisode, bounds: dict[str, float], values: Values) -> Values:
    """How far JAX's losses and gradient are from metaray's.

    Raises:
        Wrong: beyond the bounds; with `values` too.
    """
    state = initial_state(experiment, CPU)
    context = context_of(experiment, state.network, training=True).with_batched(True)
    ours = experiment.algorithm.meta_gradient(state.meta, chunk, context)
    gradient = theirs.gradient()
    assert gradient.keys() == ours.gradient.keys()
    found: Values = {
        "loss off by": off(theirs.losses(), ours.outcome.loss.numpy()),
        "gradient off by": off(
            np.concatenate([gradient[name].ravel() for name in ours.gradient]),
            np.concatenate([tensor.numpy().ravel() for tensor in ours.gradient.values()]),
        ),
    }
    bad = [name for name, bound in bounds.items() if not float(str(found[name])) <= bound]
    if bad:
        raise Wrong("JAX computes something else: " + ", ".join(bad), {**values, **found})
    return found


def off(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """Norm of the difference over that of the reference."""
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


SECTION = Section("peers", ABOUT, cases)
