"""Who computes a meta-step: metaray, a loop by hand, and the peers; first whether they compute the same."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import torch

from jobs.benchmarks.cpu.cases import Case, variants
from jobs.benchmarks.cpu.turns import Turn
from jobs.benchmarks.overhead import arrivals
from jobs.benchmarks.peers.client import Failed, Peers, Refused
from jobs.benchmarks.peers.learner import Conv4, Outcome
from jobs.benchmarks.peers.wire import SIDES, WEIGHT, Arrays
from jobs.benchmarks.plain import plain_outcomes
from jobs.benchmarks.trials import CPU
from metaray.episodes.prefetch import Arrival
from metaray.episodes.tensors import chunks
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.readiness import strategy_of
from metaray.training.reduction import LocalReducer

PEERS = ("learn2learn", "higher", "torchopt", "jax")
SLOW = "left out, as it compiles for a minute and took ten times as long at MAML 1 step: --jax times it here too"
BY_HAND, BY_HAND_OURS = "by hand", "by hand, metaray's network"
REFERENCE = "metaray, each"
TURN_S = 0.3
"""Of processor time, about; at least one meta-step."""
BOUNDS = {"float32": (1e-3, 2e-2), "bfloat16": (3e-2, 0.15)}
"""By arithmetic: how far a loss and a gradient's norm may be from the reference's, as a share of it."""


class Ready(NamedTuple):
    """A contender that can be timed.

    Attributes:
        outcome: of the first meta-step.
        steps: takes so many more, and returns the seconds of processor time.
        first_s: the seconds that the first one took, with compiling and all.
    """

    outcome: Outcome
    steps: Callable[[int], float]
    first_s: float


class Differs(Exception):
    """A contender computes something else, so that its time says nothing."""


def ready(
    case: Case, experiment: Experiment, peers: Peers, *, jax: bool = True
) -> tuple[dict[str, Ready], dict[str, str]]:
    """Those who compute the case, and why the others do not.

    Args:
        case: what is computed.
        experiment: metaray's, of that case.
        peers: the other libraries.
        jax: whether JAX is one of them.
    """
    given = arrivals(experiment, 1)
    found: dict[str, Ready] = {}
    absent = {} if jax else {"jax": SLOW}
    makers: dict[str, Callable[[], Ready]] = {
        name: partial(lambda one: in_process(ours(one, given)), one) for name, one in variants(experiment).items()
    }
    makers[BY_HAND] = lambda: in_process(by_hand(experiment, given))
    makers[BY_HAND_OURS] = partial(in_process, plain_outcomes(experiment, cycle(given), CPU))
    arrays = handed_over(experiment, given)
    for name in (name for name in PEERS if name not in absent):
        makers[name] = partial(in_peer, name, case, arrays, peers)
    for name, make in makers.items():
        try:
            one = make()
            if found:
                require_equal(name, one.outcome, found[REFERENCE].outcome, case.dtype)
            found[name] = one
        except Exception as error:
            if name == REFERENCE:
                raise
            told = (Refused, Failed, Differs, InputError)
            absent[name] = str(error) if isinstance(error, told) else f"{type(error).__name__}: {error}"
    return found, absent


def require_equal(name: str, found: Outcome, reference: Outcome, dtype: str) -> None:
    """Check a contender's loss and the norm of its gradient.

    Raises:
        Differs: beyond BOUNDS.
    """
    for what, mine, theirs, bound in zip(("loss", "gradient norm"), found, reference, BOUNDS[dtype], strict=True):
        if not abs(mine - theirs) <= bound * abs(theirs):  # also what is no number
            raise Differs(f"{name} computes something else: {what} {mine:.7g}, {REFERENCE} {theirs:.7g}")


def ours(experiment: Experiment, given: list[Arrival]) -> Iterator[Outcome]:
    """Metaray's outer loop, all of a step but its sampling."""
    # Before the first step, so that what is checked for it counts neither as time nor as memory of a step.
    state, strategy = initial_state(experiment, CPU), strategy_of(experiment, CPU)
    steps = outer_loop(experiment, state, cycle(given), LocalReducer(), CPU, strategy=strategy)
    return (Outcome(step.loss, step.gradient_norm) for step in steps)


def by_hand(experiment: Experiment, given: list[Arrival]) -> Iterator[Outcome]:
    """A plain loop over a network of torch's own modules."""
    network = Conv4({n: t.detach() for n, t in network_of(experiment).items()}, "float32")
    return plain_outcomes(experiment, cycle(given), CPU, network)


def network_of(experiment: Experiment) -> dict[str, torch.Tensor]:
    """The initial weights of the network alone."""
    meta = initial_state(experiment, CPU).meta
    return {name: tensor for name, tensor in meta.items() if ":" not in name}


def in_process(loop: Iterator[Outcome]) -> Ready:
    """A loop in this process."""
    began = time.perf_counter()
    outcome = next(loop)
    first_s = time.perf_counter() - began

    def steps(count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            loss = next(loop).loss
        taken = time.process_time() - started
        if not math.isfinite(loss):
            raise Differs(f"the loss has become {loss}")
        return taken

    return Ready(outcome, steps, first_s)


def in_peer(name: str, case: Case, arrays: Arrays, peers: Peers) -> Ready:
    """A library in its process.

    Raises:
        Refused: if it is not there, or has nothing for the method.
        Failed: if it fails.
    """
    if name not in peers.versions:
        raise Refused(peers.absent.get(name) or peers.absent["all"])
    answer = peers.ask(name, "build", arrays, method=case.method._asdict())
    outcome = Outcome(answer["loss"], answer["gradient_norm"])

    def steps(count: int) -> float:
        taken: float = peers.ask(name, "turn", steps=count)["cpu_s"]
        return taken

    return Ready(outcome, steps, answer["first_s"])


def handed_over(experiment: Experiment, given: list[Arrival]) -> Arrays:
    """Initial weights and the episodes of the first meta-batch, as metaray itself sees them."""
    (chunk,) = next(chunks(given[0].batch, experiment.meta_batch_size, CPU, experiment.source, "meta-train"))
    tensors = (tensor for side in (chunk.support, chunk.query) for tensor in side)
    arrays: dict[str, Any] = {name: np.asarray(t) for name, t in zip(SIDES, tensors, strict=True)}
    meta = initial_state(experiment, CPU).meta
    return arrays | {f"{WEIGHT}{name}": tensor.detach().numpy() for name, tensor in meta.items()}


def turns_of(found: dict[str, Ready], meta_batch_size: int) -> dict[str, Turn]:
    """Their turns, milliseconds of processor time an episode; each takes as many steps as fill TURN_S."""

    def turn_of(one: Ready) -> Turn:
        counts: list[int] = []

        def turn() -> float:
            if not counts:  # in the round that warms up
                counts.append(max(1, round(TURN_S / max(one.steps(1), 1e-6))))
            return 1e3 * one.steps(counts[0]) / (counts[0] * meta_batch_size)

        return turn

    return {name: turn_of(one) for name, one in found.items()}
