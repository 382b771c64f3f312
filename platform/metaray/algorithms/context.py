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
    """The circumstances of a call to an algorithm: the network, the ways, the outer step, and how to compute.

    Attributes:
        network: The network's architecture. Of its own weights only frozen ones are used; callers pass the others.
        ways: Number of classes N of the task; 1 for regression.
        step: Outer step, for schedules: 0 .. num_steps-1 in training, the number of steps done in evaluation.
        training: Whether gradients flow back to the meta-parameters.
        inner_steps: Number of inner steps in evaluation; None takes the algorithm's own number.
        precision: Arithmetic in the network: "float32", or "bfloat16" under autocast.
        channels_last: Whether image batches have the channels-last memory format. It has no effect if `batched`, nor on
            what is differentiated twice, which it would slow down.
        batched: Whether the call is mapped over a chunk of episodes by `torch.vmap`.
        randomness: How mapped episodes draw random numbers, as in `torch.vmap`; "same" lets all draw the same, for
            comparison with single episodes.
        task: Kind of the task.
        further: Whether `score` returns a vector: the task kind's score, then the further scores reported beside it.
        unfolded: Whether convolutions are computed as products with unfolded inputs; only if `batched`.
        run: Runner that computes the regions of the call, compiled for instance; None computes them directly.
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
        """The same context, with `batched` set."""
        return replace(self, batched=batched)

    def for_inner_steps(self, *, second_order: bool) -> Self:
        """The same context, for the loss of inner steps.

        With `second_order` the meta-gradient is differentiated through these steps.
        """
        twice = second_order and self.training
        return replace(self, channels_last=False) if twice and self.channels_last else self

    def of(self, episode: TensorEpisode) -> Self:
        """The same context, with the ways of an episode; of a chunk, mapped over its episodes."""
        ways = self.task.labels(episode.classes.shape[-1])
        return replace(self, ways=ways, batched=episode.seed.ndim > 0)

    def bare(self) -> Self:
        """The context that a compiled region may depend on: the same one without outer step and runner."""
        return replace(self, step=0, run=None)

    def compute(self, region: Callable[..., Any], *given: Any) -> Any:
        """Compute `region(*given)`, by the runner if there is one; see `Runner`."""
        if self.run is None or _plainly.get():
            return region(*given)
        return self.run(region, *given)

    @property
    def loss_dtype(self) -> torch.dtype:
        """Data type of losses: float32, or float64 if the weights are float64."""
        first = next(self.network.parameters(), None)
        return torch.float64 if first is not None and first.dtype == torch.float64 else torch.float32

    def forward(self, parameters: Tensors, x: Inputs, statistics: Tensors | None = None) -> Tensor:
        """The network's output under `parameters`.

        Args:
            parameters: All parameters that are not frozen, by name.
            x: Inputs [n, *feature], or a flat dict of named tensors [n, ...], passed to the network as they are.
            statistics: Statistics that batch norm normalises with; None takes those of `x` itself.

        Returns:
            Outputs [n, outputs], or embeddings [n, embedding].
        """
        return self.call(self.network, parameters, x, statistics)

    def forward_recording(self, parameters: Tensors, x: Inputs) -> tuple[Tensor, Tensors]:
        """The network's output, and the batch norm statistics of `x` at each layer."""
        return self.call_recording(self.network, parameters, x)

    def call_recording(self, module: nn.Module, parameters: Tensors, x: Inputs) -> tuple[Tensor, Tensors]:
        """Call a module other than the network, as `forward_recording` does."""
        found: tuple[Tensor, Tensors] = self.compute(Forward(self.bare(), module, True), parameters, x, {})
        return found

    def call(self, module: nn.Module, parameters: Tensors, x: Inputs, statistics: Tensors | None = None) -> Tensor:
        """Call a module other than the network, such as one an algorithm adds, as `forward` does."""
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
        """The mean loss of the task's kind, a scalar of type `loss_dtype`.

        Args:
            output: [n, outputs], such as logits or values.
            y: [n] labels, or [n, target_size] values.
        """
        return self.task.loss(output.to(self.loss_dtype), y)

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """The score of the task's kind, a scalar without gradient; arguments as for `loss`.

        If `further`, a vector [1 + F] of that score and the F scores of `TaskKind.further`.
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
            at: Tensors to differentiate by. They need not be leaves, but none may be computed from another.
            differentiable: Whether to keep the graph, for second-order meta-gradients.
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
        """The gradient of `loss` at `at`, and a function that multiplies a vector by the Hessian there.

        Args:
            loss: A scalar function of `at`.
            at: Tensors to differentiate by; results are not connected to them by a graph.
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
    """A forward pass as a region that can be compiled.

    Attributes:
        context: Circumstances of the call, without outer step and runner.
        module: Module to call.
        records: Whether to return the batch norm statistics of the inputs, too.
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
    """Images [n, channels, height, width] in the channels-last memory format, as torch's kernels recognise it.

    With one channel, torch takes images to be in that format already, and convolutions not to be.
    """
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    return x.contiguous().as_strided(x.shape, (channels * height * width, 1, channels * width, channels))
