"""Before the first step: how a rank computes meta-gradients is looked up or decided, made ready, and agreed upon."""

import time
from collections.abc import Callable

import torch

from metaray.data.cache import cache_folder
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.models.model import seeded
from metaray.records.environment import environment
from metaray.records.execution import Executed, read_executed, write_executed
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training.agreement import require_same_execution
from metaray.training.checks.execution import decide
from metaray.training.execution.compiling import COMPILED_FOLDER, compiler_lacking, compiler_version
from metaray.training.execution.strategy import Strategy
from metaray.training.outer_loop import chunk_size_of, context_of

COMPILED = ("compiled", "graph")


def executed_by(experiment: Experiment, device: torch.device, storage: Storage, *, writes: bool) -> Executed:
    """How a run computes: as it was begun, or else as is decided now, and written down where it is out of the ordinary.

    Args:
        experiment: to train.
        device: of this rank.
        storage: of the run.
        writes: whether this rank writes for all.

    Raises:
        RunFailed: if it was begun compiled, and this machine cannot compile.
    """
    recorded = read_executed(storage)
    # On another type of device bits are others anyway.
    if recorded is None or recorded.device != device.type:
        executed = decide(experiment, device)
        if writes and (executed.why or executed.kind in COMPILED):
            write_executed(storage, executed)
        return executed
    if recorded.kind in COMPILED and (lacking := compiler_lacking(device)) is not None:
        raise RunFailed(f"the run was begun with execution={recorded.kind}, but {lacking}")
    return recorded


def made_ready(
    experiment: Experiment,
    executed: Executed,
    state: TrainState,
    device: torch.device,
    gather: Callable[[int], list[int]],
    say: Callable[[str, str], None],
) -> Strategy:
    """What computes a rank's meta-gradients; what is to be compiled for it is, on episodes of the first step.

    Args:
        experiment: to train.
        executed: how.
        state: that training goes on from; its meta-parameters stay as they are.
        device: where.
        gather: an integer of each rank, on all.
        say: tells of a "phase" or a "note".

    Raises:
        RunFailed: if the ranks would not compute alike.
    """
    if executed.why:
        say("note", executed.why)
    strategy = Strategy(executed.kind, device, recomputes=experiment.recompute_inner_steps)
    compiler = strategy.compiler
    if compiler is None:
        return strategy
    say("phase", "compiling")
    started = time.perf_counter()
    _warm_up(experiment, strategy, state, device)
    seconds = time.perf_counter() - started
    count = len(strategy.runner.regions)
    say("note", f"{count} pieces compiled in {seconds:.1f} s (kept in {cache_folder(COMPILED_FOLDER)})")
    require_same_execution(
        {
            "the kind of execution": executed.kind,
            "what was compiled": compiler.digest,
            "the compiler": compiler_version(device),
            "software or kind of processor": environment(device),
        },
        gather,
    )
    return strategy


def _warm_up(experiment: Experiment, strategy: Strategy, state: TrainState, device: torch.device) -> None:
    """Compute once what each kind of chunk needs, now and in the last step, and forget it."""
    size, total = chunk_size_of(experiment, device), experiment.meta_batch_size
    for count in sorted({size, total % size or size}):
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, range(count))
        given = next(chunks(batch, size, device, experiment.source, "meta-train", experiment.augmentation))
        for step in sorted({state.step, experiment.num_steps - 1}):
            context = context_of(experiment, state.network, training=True, step=step)
            with seeded(0):
                for some in given:
                    strategy.meta_gradient(experiment.algorithm, state.meta, some, context.of(some))
