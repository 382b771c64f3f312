"""Convolutions as products with unfolded inputs, for where each episode of a chunk has weights of its own.

Under `torch.vmap` weights by episode make grouped convolutions, whose gradients a GPU's libraries compute group by
group. A product of matrices becomes one batched product instead. The columns hold for each output place the inputs
that its kernel sees: cut out of the padded input by shifted slices, one for each place of the kernel.

What comes out lies channel by channel, [channels, n, height, width]. Norms and ReLU keep that. A max-pool under vmap
wants images one by one, and copies its input once, and its gradient once, as it does after grouped convolutions.
Written out as the largest of each block, `amax`, it copies nothing, but its derivative compares, counts and divides: on
a CPU a 1-step meta-gradient of MAML on Conv4 took 9 and 15 % longer so (warm rounds), with the same bits and 2 % less
memory. Compiled, a pool reads any layout. So it stays.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

Pair = tuple[int, int]


def conv2d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve as `torch.conv2d` does, by a product with unfolded inputs.

    With groups, or for images without a leading axis, it calls `torch.conv2d`.

    Args:
        input: Images [n, channels, height, width].
        weight: Kernel [outputs, channels, rows, columns].
        bias: Bias [outputs], or None.
        stride: Distance between output places.
        padding: Number of zeros around the input; "same" and "valid" as in torch.
        dilation: Distance between the kernel's places.
        groups: Number of groups of channels.
    """
    if groups != 1 or input.ndim != 4:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    outputs, channels, *kernel = weight.shape
    steps, spread = _pair(stride), _pair(dilation)
    columns, size = _columns(_padded(input, padding, kernel, spread), (kernel[0], kernel[1]), steps, spread)
    # [outputs, channels * kernel] @ [channels * kernel, n * places]
    product = weight.reshape(outputs, -1) @ columns.reshape(channels * kernel[0] * kernel[1], -1)
    product = product if bias is None else product + bias.to(product.dtype)[:, None]
    return product.reshape(outputs, len(input), *size).transpose(0, 1)


def _columns(x: Tensor, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Tensor, Pair]:
    """[channels, places of the kernel, n, height, width], and the height and width of the output."""
    size = tuple((x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    last = x.transpose(0, 1)
    slices = [
        last[
            :,
            :,
            row * dilation[0] : row * dilation[0] + stride[0] * (size[0] - 1) + 1 : stride[0],
            column * dilation[1] : column * dilation[1] + stride[1] * (size[1] - 1) + 1 : stride[1],
        ]
        for row in range(kernel[0])
        for column in range(kernel[1])
    ]
    return torch.stack(slices, dim=1), (size[0], size[1])


def _padded(x: Tensor, padding: int | tuple[int, ...] | str, kernel: list[int], dilation: Pair) -> Tensor:
    if padding == "valid":
        return x
    if padding == "same":
        total = [dilation[i] * (kernel[i] - 1) for i in range(2)]
        return pad(x, [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2])
    assert not isinstance(padding, str)
    high, wide = _pair(padding)
    return pad(x, [wide, wide, high, high]) if high or wide else x


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


FORMS: dict[Callable[..., Any], Callable[..., Any]] = {torch.nn.functional.conv2d: conv2d, torch.conv2d: conv2d}
"""Replacement of each function of torch."""
