"""Norms in plain arithmetic, for where the fused kernels are wrong.

Under `torch.vmap` the second derivatives of `batch_norm`, `instance_norm` and `layer_norm` take the statistics for
constants (torch 2.13), and in low precision with float32 weights they fail. `written_out` cures the operations,
whatever module calls them. `group_norm` and `rms_norm` are right as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metaray.models import unfolded

HALVES = (torch.bfloat16, torch.float16)

_writing: ContextVar[bool] = ContextVar("writing", default=False)


def is_written_out() -> bool:
    """Whether this is inside of `written_out`."""
    return _writing.get()


@contextmanager
def written_out(*, convolutions: bool = False) -> Iterator[None]:
    """Within the block, the functions of torch that normalise are computed in plain arithmetic.

    Args:
        convolutions: Whether convolutions are replaced, too; see `metaray.models.unfolded`.
    """
    token = _writing.set(True)
    try:
        with _WrittenOut(_FORMS | unfolded.FORMS if convolutions else _FORMS):
            yield
    finally:
        _writing.reset(token)


def statistics_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, at least in float32."""
    variance, mean = torch.var_mean(_wide(x), dim=[0, *range(2, x.ndim)], correction=0)
    return mean, variance


def normalized(
    x: Tensor, statistics: tuple[Tensor, Tensor], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Normalise each channel of x [n, channels, ...] by its mean and variance, then scale and shift it."""
    mean, variance = statistics
    scale = torch.rsqrt(variance + eps)
    shift = -mean * scale
    if weight is not None:
        scale, shift = scale * weight, shift * weight
    if bias is not None:
        shift = shift + bias
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return x * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.float32) if x.dtype in HALVES else x


def _batch_norm(
    input: Tensor,  # noqa: A002 - torch's names throughout: they may be given by keyword
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    if not training and running_mean is not None and running_var is not None:
        return normalized(input, (running_mean, running_var), weight, bias, eps)
    if running_mean is not None:  # to be updated in place, which torch refuses here with a message of its own
        return torch.batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled)
    return normalized(input, statistics_of(input), weight, bias, eps)


def _functional_batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training and input.numel() == input.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    return _batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)


def _instance_norm(
    input: Tensor,  # noqa: A002
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    if running_mean is not None:
        return _batch_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps)
    channels = [1, -1] + [1] * (input.ndim - 2)
    weight, bias = (each if each is None else each.view(channels) for each in (weight, bias))
    return _standardized(input, list(range(2, input.ndim)), weight, bias, eps).to(input.dtype)


def _functional_instance_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if use_input_stats and input[0, 0].numel() == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    return _instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps)


def _layer_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Tensor:
    dims = list(range(input.ndim - len(normalized_shape), input.ndim))
    # Autocast on a GPU runs this one in float32; on a CPU it leaves the type alone.
    widened = input.is_cuda and torch.is_autocast_enabled("cuda") and input.dtype in HALVES
    return _standardized(input, dims, weight, bias, eps).to(torch.float32 if widened else input.dtype)


def _standardized(x: Tensor, dims: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Standardise over the statistics of some dimensions, then scale and shift, at least in float32."""
    wide = _wide(x)
    variance, mean = torch.var_mean(wide, dim=dims, correction=0, keepdim=True)
    normal = (wide - mean) * torch.rsqrt(variance + eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _native_layer_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dims = list(range(input.ndim - len(normalized_shape), input.ndim))
    variance, mean = torch.var_mean(_wide(input), dim=dims, correction=0, keepdim=True)
    return _layer_norm(input, normalized_shape, weight, bias, eps), mean, torch.rsqrt(variance + eps)


def _native_batch_norm(
    input: Tensor,  # noqa: A002
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    output = _batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)
    mean, variance = statistics_of(input)
    return output, mean, torch.rsqrt(variance + eps)


_FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.nn.functional.batch_norm: _functional_batch_norm,
    torch.batch_norm: _batch_norm,
    torch.native_batch_norm: _native_batch_norm,
    torch.nn.functional.instance_norm: _functional_instance_norm,
    torch.instance_norm: _instance_norm,
    torch.nn.functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    torch.native_layer_norm: _native_layer_norm,
}


class _WrittenOut(TorchFunctionMode):
    def __init__(self, forms: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._forms = forms

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._forms.get(func, func)(*args, **(kwargs or {}))
