"""Steps that are launched and not yet settled: a GPU computes on while the host finds out what came out of a step."""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaray.errors import Diverged
from metaray.experiment.experiment import Experiment
from metaray.records.train_state import TrainState


def lag_on(device: torch.device) -> int:
    """Number of steps that the host lags behind: none on a CPU, where there is nobody to wait for."""
    return 1 if device.type == "cuda" else 0


class Settled(NamedTuple):
    """What came out of a step.

    Attributes:
        step: Number of the step.
        losses: [B] query losses, on the CPU.
        scores: [B] likewise.
        norm: Norm of the outer gradient, before clipping.
        stop: Some rank was asked to stop.
    """

    step: int
    losses: Tensor
    scores: Tensor
    norm: float
    stop: bool

    def require_finite(self, experiment: Experiment) -> None:
        """Refuse a step whose losses or gradient are not numbers.

        Raises:
            Diverged: Naming the step and its episodes.
        """
        bad = [i for i, loss in enumerate(self.losses.tolist()) if not math.isfinite(loss)]
        if not bad and math.isfinite(self.norm):
            return
        first, size = self.step * experiment.meta_batch_size, experiment.meta_batch_size
        if bad:
            listed = ", ".join(f"episode {first + i} (loss {self.losses[i]:g})" for i in bad)
            what = f"the loss is not finite in {listed}"
        else:
            what = (
                f"the outer gradient is not finite (norm {self.norm:g}) over episodes {first} to {first + size - 1}, "
                f"mean loss {self.losses.mean():g}"
            )
        raise Diverged(f"stopped at step {self.step}: {what}. A smaller inner or outer learning rate often helps.")


class Outcome:
    """What comes out of a step, on its way to the host; nobody waits for it before it is asked for.

    Args:
        step: Number of the step.
        outcomes: [2, B] losses and scores.
        norm: [] of the outer gradient.
        stop: [1] how many ranks were asked to stop.
    """

    def __init__(self, step: int, outcomes: Tensor, norm: Tensor, stop: Tensor) -> None:
        self._step, self._dtype = step, outcomes.dtype
        # Every number of these is one in float64, too. What is given may be overwritten by the next step.
        found = torch.cat([outcomes.reshape(-1).double(), norm.to(stop.device).reshape(1), stop.reshape(1).double()])
        self._arrived: torch.cuda.Event | None = None
        if found.device.type == "cuda":
            # The copy is asked for now: later it would queue up behind the next step.
            there = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            there.copy_(found, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
            found = there
        self._found = found

    def wait(self) -> Settled:
        """Wait for it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        *_, norm, stop = self._found.tolist()
        losses, scores = self._found[:-2].to(self._dtype).view(2, -1)
        return Settled(self._step, losses, scores, norm, bool(stop))


class Kept:
    """A copy of the state before an update, on the same devices, to be put back if the update must not stand."""

    def __init__(self, state: TrainState) -> None:
        self._step, optimizer = state.step, state.optimizer
        state_before = {} if optimizer is None else dict(optimizer.state)
        parameters = list(state.meta.values())
        copied = _copied([*parameters, *_tensors(state_before)])
        self._meta = {name: copied[id(tensor)] for name, tensor in state.meta.items()}
        # Parameters are the keys of an optimiser's state, and stay themselves; of other tensors there are copies now.
        known = copied | {id(one): one for one in parameters}
        self._state = copy.deepcopy(state_before, known)
        groups = [] if optimizer is None else optimizer.param_groups
        self._groups = [copy.deepcopy({k: v for k, v in group.items() if k != "params"}) for group in groups]

    def put_back(self, state: TrainState) -> None:
        """Let the state be again what it was."""
        state.step = self._step
        with torch.no_grad():
            for name, tensor in state.meta.items():
                tensor.copy_(self._meta[name])
        if state.optimizer is None:
            return
        state.optimizer.state.clear()
        state.optimizer.state.update(self._state)
        for group, before in zip(state.optimizer.param_groups, self._groups, strict=True):
            parameters = group["params"]
            group.clear()
            group.update(before, params=parameters)


class Launch(NamedTuple):
    """A step that is under way.

    Attributes:
        outcome: Outcome of the step.
        kept: The state before its update; None where the outcome was known, and good, before.
        outer_lr: Learning rate used.
        wait_s: Time this rank stood waiting for its episodes.
    """

    outcome: Outcome
    kept: Kept | None
    outer_lr: float
    wait_s: float


class Launches:
    """The steps of a loop that are under way, at most `lag` of them when it goes on.

    Args:
        experiment: Experiment that is trained.
        state: State that the steps update.
        lag: How many steps the host lags behind.
        settles: Whether whoever iterates looks at the state once so many steps are done: then nothing is under way.
    """

    def __init__(self, experiment: Experiment, state: TrainState, lag: int, settles: Callable[[int], bool]) -> None:
        self._experiment, self._state, self._lag, self._settles = experiment, state, lag, settles
        self._under_way: deque[Launch] = deque()

    def add(self, launch: Launch) -> None:
        """One more, the state's update included."""
        self._under_way.append(launch)

    def settled(self, *, all_of_them: bool = False) -> Iterator[tuple[Launch, Settled]]:
        """Wait for those that are due, the oldest first.

        A wish to stop is passed on with the last that is under way, so that the state is settled then.

        Raises:
            Diverged: If one is not finite; the state is then that before it.
        """
        asked = False
        while self._under_way and (
            len(self._under_way) > self._lag or all_of_them or asked or self._settles(self._state.step)
        ):
            launch = self._under_way.popleft()
            settled = launch.outcome.wait()
            self._check(launch, settled)
            asked = asked or settled.stop
            yield launch, settled._replace(stop=asked and not self._under_way)

    def blame(self) -> None:
        """Something was raised: if that may come of an update that must not stand, say so instead.

        Raises:
            Diverged: If it may come of such an update.
        """
        for launch in self._under_way:
            self._check(launch, launch.outcome.wait())

    def _check(self, launch: Launch, settled: Settled) -> None:
        if launch.kept is None:
            return
        try:
            settled.require_finite(self._experiment)
        except Diverged:
            launch.kept.put_back(self._state)
            self._under_way.clear()
            raise


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors among the values of nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


def _copied(tensors: list[Tensor]) -> dict[int, Tensor]:
    """Copies by the identity of what they are copies of: a few kernels for all, not one each."""
    unique = {id(tensor): tensor.detach() for tensor in tensors}
    found = {key: torch.empty_like(tensor) for key, tensor in unique.items()}
    by_device: dict[torch.device, list[int]] = {}
    for key, tensor in unique.items():
        by_device.setdefault(tensor.device, []).append(key)
    for keys in by_device.values():
        torch._foreach_copy_([found[key] for key in keys], [unique[key] for key in keys])
    return found
