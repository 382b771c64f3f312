"""Before the first step: how a rank computes meta-gradients is looked up or decided, made ready, and agreed upon."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Event, Thread
from typing import Literal

import torch
from torch import Tensor

from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.errors import InputError, RunFailed
from metaray.experiment.chunking import workers_at_most
from metaray.experiment.experiment import Experiment
from metaray.models.model import seeded
from metaray.records.environment import environment, metaray_version
from metaray.records.execution import EXECUTION, Executed, read_executed, write_executed
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training.agreement import require_same_execution
from metaray.training.checks.execution import decide
from metaray.training.execution.compiling import Alive, artefacts_folder, compiler_lacking, compiler_version
from metaray.training.execution.replay import Replay
from metaray.training.execution.strategy import Strategy
from metaray.training.execution.table import Kind, convolutions_of
from metaray.training.execution.tracing import Flat
from metaray.training.execution.turns import kinds_of_steps
from metaray.training.outer_loop import chunk_size_of, context_of

COMPILED = ("compiled", "graph")
KINDS: tuple[Kind, ...] = ("each", "batched", "compiled", "graph")
"""What needs more later."""
ALIVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Ground:
    """Where a rank gets ready.

    Attributes:
        storage: Storage of the run.
        device: Device of the rank.
        writes: Whether this rank writes for all.
        gather: Gives an integer of each rank to all of them.
        say: Tells of a "phase" or a "note".
        alive: Tells whoever watches over the rank that it gets ahead.
        data_on: Where the examples are that this rank computes with.
    """

    storage: Storage
    device: torch.device
    writes: bool
    gather: Callable[[int], list[int]]
    say: Callable[[Literal["phase", "note"], str], None]
    alive: Callable[[], None] = lambda: None
    data_on: Literal["host", "device"] = "host"


def strategy_of(experiment: Experiment, device: torch.device) -> Strategy:
    """What computes an experiment's meta-gradients in this process alone, without a run that would keep a record.

    Raises:
        InputError: If it cannot be computed as it says; a run would fall back, but who measures wants what was asked.
    """
    executed = decide(experiment, device)
    if executed.why:
        raise InputError(f"execution={experiment.execution}: {executed.why}")
    return _strategy(experiment, executed, device)


def executed_by(experiment: Experiment, ground: Ground, step: int = 0) -> Executed:
    """How a run computes: as it was begun, or else as is decided now.

    Args:
        experiment: Experiment of the run.
        ground: Where the rank gets ready.
        step: Step that the run goes on from; what has gone so far without a record went line by line.

    Raises:
        RunFailed: If it was begun compiled, and this machine cannot compile.
    """
    recorded = _recorded(ground)
    if recorded is None and step > _first_step(experiment) and not ground.storage.exists(EXECUTION):
        return _before_records(experiment, ground)
    if recorded is None:
        return decide(experiment, ground.device)
    lacking = compiler_lacking(ground.device) if recorded.kind in COMPILED else None
    if lacking is not None:
        raise RunFailed(f"the run was begun with execution={recorded.kind}, but {lacking}")
    return recorded


def made_ready(
    experiment: Experiment, executed: Executed, state: TrainState, ground: Ground
) -> tuple[Strategy, Executed]:
    """What computes a rank's meta-gradients; what is to be compiled for it is, on episodes of the first step.

    A run that begins, or goes on on another type of device, falls back to what is plain where that fails on any rank.
    How it computes is written down before the first step.

    Args:
        experiment: Experiment to train.
        executed: How meta-gradients are computed.
        state: State that training goes on from; its meta-parameters stay as they are.
        ground: Where the rank gets ready.

    Raises:
        RunFailed: If the ranks would not compute alike, or a run that was begun compiled cannot go on so.
    """
    # Before anybody can write it: all have read it once all have said what they would do.
    recorded, elsewhere = _recorded(ground), ground.storage.exists(EXECUTION)
    executed = _in_full(experiment, _agreed(experiment, executed, ground), ground)
    _require_alike(experiment, executed, ground)
    strategy = _strategy(experiment, executed, ground.device, lambda: _alive(ground))
    problem = _compiled(experiment, strategy, executed.kind, state, ground) if strategy.compiler is not None else None
    if strategy.compiler is not None and any(ground.gather(int(problem is not None))):
        why = problem or "another worker could not compile it"
        if recorded is not None or (state.step > _first_step(experiment) and not elsewhere):
            raise RunFailed(f"the run was begun with execution={executed.kind}, which fails here: {why}")
        plain = _plain(experiment, ground)
        executed = Executed(kind=plain, why=f"computed {plain}, because {why}", device=ground.device.type)
        executed = _in_full(experiment, executed, ground)
        strategy = _strategy(experiment, executed, ground.device)
    if executed.why:
        ground.say("note", executed.why)
    if executed.kind in COMPILED:
        executed = _by_compiler(executed, recorded, ground)
    if ground.writes and executed != recorded:
        write_executed(ground.storage, executed)
    return strategy, executed


def _first_step(experiment: Experiment) -> int:
    """The step that a run begins with."""
    return 0 if experiment.initial is None else experiment.initial.step


def _before_records(experiment: Experiment, ground: Ground) -> Executed:
    """How a run has gone that was begun before that was written down: plainly, by torch's own convolutions."""
    kind, size = _plain(experiment, ground), chunk_size_of(experiment, ground.device)
    now = convolutions_of(ground.device.type, kind, size)
    then = "grouped" if now == "unfolded" else now
    if then != now:
        ground.say(
            "note",
            "the run was begun before its kernels were written down, and goes on with those that it had then "
            f"(convolutions: {then}); a new one would have faster ones ({now})",
        )
    return Executed(kind=kind, device=ground.device.type, convolutions=then)


def _in_full(experiment: Experiment, executed: Executed, ground: Ground) -> Executed:
    """How a rank computes, with all that a record says; what it does not say yet is as it is usual now."""
    size = chunk_size_of(experiment, ground.device)
    usual = convolutions_of(ground.device.type, executed.kind, size)
    return executed.model_copy(
        update={
            "convolutions": executed.convolutions or usual,
            "data_on": ground.data_on,
            "most_workers": workers_at_most(experiment, size),
        }
    )


def _require_alike(experiment: Experiment, executed: Executed, ground: Ground) -> None:
    """Refuse ranks that would not compute by the same kernels, as far as metaray chooses them.

    Raises:
        RunFailed: If they would not compute alike; all ranks raise.
    """
    found = {
        "the kind of execution": executed.kind,
        "how convolutions are computed": executed.convolutions,
        "the type of device": ground.device.type,
        "how the meta-batch is cut": chunk_size_of(experiment, ground.device),
        "metaray's version": metaray_version(),
    }
    require_same_execution(found, ground.gather)


def _agreed(experiment: Experiment, executed: Executed, ground: Ground) -> Executed:
    """What all ranks can do: where one has no compiler, none compiles."""
    found = [KINDS[place] for place in ground.gather(KINDS.index(executed.kind))]
    least = min(found, key=KINDS.index)
    if least == executed.kind:
        return executed
    kind = least if least in COMPILED else _plain(experiment, ground)
    why = f"computed {kind}, because another worker cannot do it {executed.kind}"
    return Executed(kind=kind, why=why, device=executed.device)


def _by_compiler(executed: Executed, recorded: Executed | None, ground: Ground) -> Executed:
    """How a rank computes, with what compiles it; a note tells where that was another one when the run began."""
    compiler = compiler_version(ground.device)
    if recorded is not None and recorded.compiler not in ("", compiler):
        ground.say("note", f"another compiler than before ({recorded.compiler} -> {compiler}): bits may differ")
    # The record keeps the one that it was begun with.
    return executed.model_copy(update={"compiler": (recorded and recorded.compiler) or compiler})


def _plain(experiment: Experiment, ground: Ground) -> Kind:
    return "each" if chunk_size_of(experiment, ground.device) == 1 else "batched"


def _recorded(ground: Ground) -> Executed | None:
    """What the run was begun with on such a device; on another one its bits are others anyway."""
    found = read_executed(ground.storage)
    return found if found is not None and found.device == ground.device.type else None


def _strategy(experiment: Experiment, executed: Executed, device: torch.device, alive: Alive = nullcontext) -> Strategy:
    return Strategy(
        executed.kind,
        device,
        recomputes=experiment.recompute_inner_steps,
        unfolds=executed.convolutions == "unfolded" if executed.convolutions else None,
        alive=alive,
        capture=_recorded_once if executed.kind == "graph" else None,
    )


def _recorded_once(function: Flat, inputs: Sequence[Tensor], fixed: int) -> Flat:
    return Replay(function, inputs, fixed=fixed, hand_out=True)


def _compiled(experiment: Experiment, strategy: Strategy, kind: Kind, state: TrainState, ground: Ground) -> str | None:
    """Compile; returns what went wrong on this rank.

    Raises:
        RunFailed: If another rank has compiled something else.
    """
    assert strategy.compiler is not None
    ground.say("phase", "compiling")
    started, problem = time.perf_counter(), None
    try:
        with _alive(ground):
            _warm_up(experiment, strategy, state, ground.device)
    except Exception as error:  # noqa: BLE001 - a compiler fails in ways of its own
        problem = f"it could not be compiled ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
        strategy.compiler.texts.clear()
    if not any(ground.gather(int(problem is not None))):
        found = {
            "the kind of execution": kind,
            "what was compiled": strategy.compiler.digest,
            "the compiler": compiler_version(ground.device),
            "software or kind of processor": environment(ground.device),
        }
        require_same_execution(found, ground.gather)
        seconds, count = time.perf_counter() - started, len(strategy.runner.regions)
        ground.say("note", f"{count} pieces compiled in {seconds:.1f} s (kept in {artefacts_folder()})")
    return problem


@contextmanager
def _alive(ground: Ground) -> Iterator[None]:
    """Within the block the rank counts as one that gets ahead: one piece alone may take a compiler minutes."""
    done = Event()

    def beat() -> None:
        while not done.wait(ALIVE_EVERY_S):
            ground.alive()

    ground.alive()
    thread = Thread(target=beat, name="compiling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _warm_up(experiment: Experiment, strategy: Strategy, state: TrainState, device: torch.device) -> None:
    """Compute once what each kind of chunk needs, in each kind of step that is to come, and forget it."""
    size, total = chunk_size_of(experiment, device), experiment.meta_batch_size
    for count in sorted({size, total % size or size}):
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, range(count))
        given = next(chunks(batch, size, device, experiment.source, "meta-train", experiment.augmentation))
        for step in kinds_of_steps(experiment, state.step):
            context = context_of(experiment, state.network, training=True, step=step)
            with seeded(0):
                for some in given:
                    strategy.meta_gradient(experiment.algorithm, state.meta, some, context.of(some))
