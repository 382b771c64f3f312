"""Meta-steps: how long metaray, a loop by hand and the peers take for the same."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from jobs.benchmarks.cpu import bounds
from jobs.benchmarks.cpu.cases import CASES, DTYPES, Case, experiment_of, without_instructions
from jobs.benchmarks.cpu.contenders import BOUNDS, ready, turns_of
from jobs.benchmarks.cpu.runs import Job, Setting
from jobs.benchmarks.cpu.turns import alternated
from jobs.benchmarks.gpu.ceilings import flops_of_an_episode
from jobs.benchmarks.gpu.section import Setting as Flops
from jobs.benchmarks.gpu.section import Skipped
from jobs.benchmarks.overhead import arrivals
from jobs.benchmarks.trials import CPU
from metaray.experiment.experiment import Experiment
from metaray.training.device import set_execution

SECTION = "meta-step"
ABOUT = f"""One meta-step: the gradient of a meta-batch and Adam's step, of Conv4 (64 channels, max-pool) on grey \
28x28 images, 15 queries a class, transductive batch norm. All start from the same weights, and learn the \
same episodes, which are sampled beforehand. Who finds a loss that is off metaray's by more than \
{BOUNDS["float32"][0]:g} of it ({BOUNDS["bfloat16"][0]:g} in bfloat16), or a gradient's norm by more than \
{BOUNDS["float32"][1]:g} ({BOUNDS["bfloat16"][1]:g}), is not timed. Metaray's time is that of its whole \
outer loop, normalising images and checking for what is not finite included; JAX's is that of the \
gradient alone, and compiling comes on top, once. "By hand" is `jobs/benchmarks/plain.py` on torch's own \
modules, in this process as metaray is, the others are in processes of their own. Work is what \
`torch.utils.flop_counter` counts in the matrix products and convolutions of one episode's meta-gradient, \
a multiplication and an addition as two; the bound is the rate of a float32 product of matrices of \
{bounds.LARGE} rows, taken in the same turns."""


def jobs(setting: Setting) -> Iterator[Job]:
    """One a case; in bfloat16 after float32, what matters most first."""
    for dtype in DTYPES:
        for case in CASES:
            if case.dtype == dtype:
                yield Job(SECTION, case.title, partial(measured, case, setting), settings_of(case, setting))


def settings_of(case: Case, setting: Setting) -> dict[str, Any]:
    """What a record of it was made with."""
    told = {**case._asdict(), "algorithm": case.algorithm.model_dump(mode="json")}
    return {
        **told,
        "turns": setting.turns,
        "seconds": setting.seconds,
        "jax": setting.jax,
        "size": setting.size._asdict(),
    }


def measured(case: Case, setting: Setting) -> dict[str, Any]:
    """Losses first, then time, in alternating turns.

    Raises:
        Skipped: for bfloat16 on a processor without instructions for it.
    """
    if case.dtype == "bfloat16" and (why := without_instructions()):
        raise Skipped(why)
    experiment = experiment_of(case, setting.scratch, setting.size)
    set_execution(experiment, CPU)
    jax = setting.jax or case == CASES[0]
    found, absent = ready(case, experiment, setting.peers, jax=jax)
    for name, why in absent.items():
        setting.say(f"  without {name}: {why.strip().splitlines()[-1]}")
    turns = turns_of(found, case.meta_batch_size) | {bounds.GEMM: bounds.matrix_product()}
    times = alternated(turns, turns=setting.turns, seconds=setting.seconds)
    gemm = times.pop(bounds.GEMM)
    return {
        "ms_an_episode": times,
        "outcomes": {name: one.outcome._asdict() for name, one in found.items()},
        "first_step_s": {name: one.first_s for name, one in found.items()},
        "absent": absent,
        "gemm_gflop_per_s": gemm,
        "gflop_an_episode": gflop_of(experiment, setting),
        "peers": setting.peers.versions,
    }


def gflop_of(experiment: Experiment, setting: Setting) -> float:
    """The arithmetic of an episode, without what a compiler or recomputing makes of it."""
    batch = arrivals(experiment, 1)[0].batch
    return flops_of_an_episode(experiment, Flops(CPU, setting.scratch), batch) / 1e9
