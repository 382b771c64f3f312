"""What an algorithm's methods are told besides their data."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from metaray.data.names import some
from metaray.episodes.inputs import Inputs, device_of
from metaray.episodes.tensors import TensorEpisode
from metaray.errors import InputError
from metaray.models.batch_norm import given, recording
from metaray.models.substitution import called_with
from metaray.models.written_out import written_out
from metaray.tasks import Classification, TaskKind

CLASSES = Classification()
SHOWN = 4

Tensors = dict[str, Tensor]

_plainly: ContextVar[bool] = ContextVar("plainly", default=False)


class Runner(Protocol):
    """Computes regions of an algorithm in another way than line by line, as `metaray.training.execution` does."""

    def __call__(self, region: Callable[..., Any], *given: Any) -> Any:
        """What `region(*given)` gives.

        Args:
            region: A function of its arguments alone, equal to (and with the hash of) every other that does the same.
            given: Trees of tensors (tuples, lists, dicts); nothing else that it computes with needs derivatives.
        """


@contextmanager
def plainly() -> Iterator[None]:
    """Within the block, regions are computed line by line: what is differentiated twice cannot be run otherwise."""
    token = _plainly.set(True)
    try:
        yield
    finally:
        _plainly.reset(token)


def not_finite(tensors: Tensors) -> str | None:
    """The first tensor that holds NaN or infinity; None if none does."""
    return next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), None)


@dataclass(frozen=True)
class Context:
    """The circumstances of one call.

    Attributes:
        network: The architecture; of its own weights only frozen ones are used, for the others callers pass theirs.
        ways: Classes that the task tells apart, N; 1 where its targets are values.
        step: Outer step, for schedules: 0 .. num_steps-1 in training, the steps done so far when judged.
        training: Whether gradients flow back to the meta-parameters.
        inner_steps: Overrides the algorithm's number, where evaluation differs from training.
        precision: Arithmetic in the network: "bfloat16" runs it under autocast.
        channels_last: Memory format of image batches; without effect where `batched`, and in what is differentiated
            twice, which it makes dearer.
        batched: The call is mapped over a chunk by `torch.vmap`.
        randomness: Random numbers of episodes that are mapped over: "same" lets all draw the same, to be compared with
            single ones.
        task: The kind of the task.
        further: Scores are vectors: the score of the task's kind, then those that are reported beside it.
        unfolded: Where `batched`, convolutions are written out as products with unfolded inputs.
        run: Computes the regions of the call; None computes them line by line.
    """

    network: nn.Module
    ways: int
    step: int = 0
    training: bool = False
    inner_steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    batched: bool = False
    randomness: Literal["different", "same"] = "different"
    task: TaskKind = CLASSES
    further: bool = False
    unfolded: bool = False
    run: Runner | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.inner_steps is not None and self.inner_steps < 0:
            raise InputError(f"inner_steps must not be negative (got {self.inner_steps})")

    def with_batched(self, batched: bool) -> Self:
        """The same circumstances, mapped over a chunk or not."""
        return replace(self, batched=batched)

    def for_inner_steps(self, *, second_order: bool) -> Self:
        """The same circumstances for the loss of inner steps, through which the meta-gradient runs or not."""
        twice = second_order and self.training
        return replace(self, channels_last=False) if twice and self.channels_last else self

    def of(self, episode: TensorEpisode) -> Self:
        """The same circumstances for an episode of as many ways as it has, or for a chunk to map over."""
        ways = self.task.labels(episode.classes.shape[-1])
        return replace(self, ways=ways, batched=episode.seed.ndim > 0)

    def bare(self) -> Self:
        """What a region may depend on: the same circumstances, wherever in the outer loop, without a runner."""
        return replace(self, step=0, run=None)

    def compute(self, region: Callable[..., Any], *given: Any) -> Any:
        """`region(*given)`, as the runner does it where there is one; see `Runner`."""
        if self.run is None or _plainly.get():
            return region(*given)
        return self.run(region, *given)

    @property
    def loss_dtype(self) -> torch.dtype:
        """Losses are computed in float32, or in float64 where the weights are."""
        first = next(self.network.parameters(), None)
        return torch.float64 if first is not None and first.dtype == torch.float64 else torch.float32

    def forward(self, parameters: Tensors, x: Inputs, statistics: Tensors | None = None) -> Tensor:
        """The network's output under `parameters`.

        Args:
            parameters: Parameters by name, all that are not frozen.
            x: [n, *feature], or a flat dict of named tensors [n, ...], which the network gets as it is.
            statistics: What batch norm normalises with; by default those of `x` itself.
        """
        return self.call(self.network, parameters, x, statistics)

    def forward_recording(self, parameters: Tensors, x: Inputs) -> tuple[Tensor, Tensors]:
        """The network's output, and the batch norm statistics of `x` at every layer."""
        return self.call_recording(self.network, parameters, x)

    def call_recording(self, module: nn.Module, parameters: Tensors, x: Inputs) -> tuple[Tensor, Tensors]:
        """Call another module than the network, as `forward_recording` does."""
        found: tuple[Tensor, Tensors] = self.compute(Forward(self.bare(), module, True), parameters, x, {})
        return found

    def call(self, module: nn.Module, parameters: Tensors, x: Inputs, statistics: Tensors | None = None) -> Tensor:
        """Call another module than the network, one that an algorithm brings, as `forward` does."""
        if self.run is None:
            return self._called(module, parameters, x, statistics or {})
        output: Tensor = self.compute(Forward(self.bare(), module), parameters, x, statistics or {})
        return output

    def _called(self, module: nn.Module, parameters: Tensors, x: Inputs, statistics: Tensors) -> Tensor:
        # torch.vmap knows no memory formats.
        if self.channels_last and isinstance(x, Tensor) and x.ndim == 4 and not self.batched:
            x = channels_last(x)
        module.train(self.training)  # dropout and the like; our batch norm knows no such modes
        kernels = written_out(convolutions=self.unfolded) if self.batched else nullcontext()
        with self._autocast(device_of(x)), kernels, given(module, statistics):
            output: Tensor = called_with(module, parameters, (x,))
        return output

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean loss of the task's kind, in `loss_dtype`.

        Args:
            output: [n, outputs], such as logits or values.
            y: [n] labels, or [n, target_size] values.
        """
        return self.task.loss(output.to(self.loss_dtype), y)

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """The score of the task's kind, [], without gradient; arguments as for `loss`.

        With `further` [1 + F], that score and the F of `TaskKind.further`.
        """
        output = output.detach().to(self.loss_dtype)
        score = self.task.judged(output, y)
        if not self.further:
            return score
        return torch.stack([score, *(one.to(score.dtype) for one in self.task.judged_further(output, y))])

    def gradient(self, loss: Callable[[Tensors], Tensor], at: Tensors, *, differentiable: bool) -> Tensors:
        """The gradient of `loss` with respect to the tensors `at`.

        Args:
            loss: A scalar function of `at`.
            at: Where; need not be leaves, but none may be computed from another.
            differentiable: Keep the graph, for second-order meta-gradients.
        """
        if not at:
            return {}
        if differentiable and self.run is not None:
            with plainly():
                return replace(self, run=None).gradient(loss, at, differentiable=True)
        if self.batched:
            # Inside vmap, autograd.grad sees the whole chunk; func.grad sees one episode.
            gradients: Tensors = torch.func.grad(loss)(at)
            return gradients if differentiable else {name: g.detach() for name, g in gradients.items()}
        with torch.enable_grad():
            at = {name: t if t.requires_grad else t.detach().requires_grad_() for name, t in at.items()}
            value = loss(at)
            if not value.requires_grad:
                raise InputError(
                    f"the loss depends on none of the parameters that inner steps would change: {some(list(at), SHOWN)}"
                )
            found = torch.autograd.grad(value, list(at.values()), create_graph=differentiable, materialize_grads=True)
        return dict(zip(at, found, strict=True))

    def curvature(self, loss: Callable[[Tensors], Tensor], at: Tensors) -> tuple[Tensors, Callable[[Tensors], Tensors]]:
        """The gradient of `loss` at `at`, and a function that multiplies the Hessian there with a vector.

        Args:
            loss: A scalar function of `at`.
            at: Where; what comes back is not connected to it.
        """
        if self.run is not None:
            with plainly():
                return replace(self, run=None).curvature(loss, at)
        at = {name: tensor.detach() for name, tensor in at.items()}
        if self.batched:
            gradient, pull_back, *_ = torch.func.vjp(torch.func.grad(loss), at)
            return gradient, lambda vector: pull_back(vector)[0]
        at = {name: tensor.requires_grad_() for name, tensor in at.items()}
        slope = self.gradient(loss, at, differentiable=True)
        bent = [name for name, tensor in slope.items() if tensor.requires_grad]

        def product(vector: Tensors) -> Tensors:
            if not bent:  # the loss is linear
                return {name: torch.zeros_like(tensor) for name, tensor in at.items()}
            found = torch.autograd.grad(
                [slope[name] for name in bent],
                list(at.values()),
                [vector[name] for name in bent],
                retain_graph=True,
                materialize_grads=True,
            )
            return dict(zip(at, found, strict=True))

        return {name: tensor.detach() for name, tensor in slope.items()}, product

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Forward:
    """The region of a forward pass.

    Attributes:
        context: The circumstances, bare.
        module: Module to call.
        records: Also gives the batch norm statistics of what it sees.
    """

    context: Context
    module: nn.Module
    records: bool = False

    def __call__(self, parameters: Tensors, x: Inputs, statistics: Tensors) -> Any:
        """The output, and where it records the statistics."""
        if not self.records:
            return self.context._called(self.module, parameters, x, statistics)
        with recording(self.module) as found:
            output = self.context._called(self.module, parameters, x, statistics)
        return output, found


def channels_last(x: Tensor) -> Tensor:
    """Images [n, channels, height, width] in that memory format, such that torch's kernels notice.

    Of one channel, torch holds images for so laid out already, and convolutions for the contrary.
    """
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    return x.contiguous().as_strided(x.shape, (channels * height * width, 1, channels * width, channels))
