"""Float64 convolutions in slabs: on a CPU torch unfolds their whole input, which takes many times its memory."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

_SLAB_BYTES = 2**23  # of what is unfolded at a time: fits the caches of a CPU core, where a matrix product is fastest

Convolution = Callable[..., Tensor]  # `torch.conv1d`, `conv2d` or `conv3d`


def convolve_in_slabs(convolution: Convolution) -> Convolution:
    """``convolution``, for as many rows of the output at a time as unfold to a few MiB.

    The same sums for every output element, so equal up to the order of float64 additions. Only convolutions that torch
    unfolds are divided: float64 on a CPU. Those of volumes, which take most of the time of a proof, are also unfolded
    along one axis instead of three, which is two to three times as fast as torch where there are few channels.
    """

    @wraps(convolution)
    def divided(
        input: Tensor,  # noqa: A002  (torch's name)
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        whole = input.dtype is not torch.float64 or input.is_cuda or input.ndim != weight.ndim
        unfolded = len(input) * weight[0].numel() * prod(input.shape[2:]) * input.element_size()
        if whole or isinstance(padding, str) or unfolded <= _SLAB_BYTES:
            return convolution(input, weight, bias, stride, padding, dilation, groups)
        rank = weight.ndim - 2
        steps, margins, gaps = _tuple(stride, rank), _tuple(padding, rank), _tuple(dilation, rank)
        if groups == 1 and steps == (1, 1, 1):
            by_slab, taps = partial(_convolve_volume, dilation=gaps), weight.shape[-1]
        else:
            by_slab, taps = partial(convolution, stride=steps, dilation=gaps, groups=groups), prod(weight.shape[2:])
        reach = gaps[0] * (weight.shape[2] - 1) + 1
        rows = (input.shape[2] + 2 * margins[0] - reach) // steps[0] + 1
        positions = len(input) * prod(input.shape[3:]) // prod(steps[1:])  # of one row of the output, or a few less
        at_once = max(1, _SLAB_BYTES // (weight.shape[1] * taps * max(positions, 1) * input.element_size()))
        result = None
        for first in range(0, rows, at_once):
            count = min(at_once, rows - first)
            seen = _rows(input, first * steps[0] - margins[0], (count - 1) * steps[0] + reach)
            slab = by_slab(seen, weight, bias, padding=(0, *margins[1:]))
            result = slab.new_empty((*slab.shape[:2], rows, *slab.shape[3:])) if result is None else result
            result.narrow(2, first, count).copy_(slab)
        assert result is not None, f"a convolution of {tuple(input.shape)} without output"
        return result

    return divided


def _convolve_volume(
    volume: Tensor, weight: Tensor, bias: Tensor | None, *, padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """A convolution of ``(N, C, D, H, W)`` with ``(O, C, *kernel)`` at stride 1.

    How it works: shifted copies along W are stacked as further channels, so that each row of the kernel, one for every
    offset along D and H, is one matrix product with a view of the stack.
    """
    padded = F.pad(volume, [margin for margin in reversed(padding) for _ in range(2)])
    depth, height, width = (
        size - gap * (taps - 1) for size, gap, taps in zip(padded.shape[2:], dilation, weight.shape[2:], strict=True)
    )
    rows = weight.permute(2, 3, 0, 4, 1).flatten(3)  # (kD, kH, O, kW * C)
    results = []
    for sample in padded:
        stack = torch.cat([sample[..., dilation[2] * tap :][..., :width] for tap in range(weight.shape[4])])
        result = volume.new_zeros((depth, len(weight), height * width))
        if bias is not None:
            result += bias[:, None]
        for down, along in product(range(weight.shape[2]), range(weight.shape[3])):
            shifted = stack.narrow(1, dilation[0] * down, depth).narrow(2, dilation[1] * along, height)
            result.baddbmm_(rows[down, along].expand(depth, -1, -1), shifted.flatten(2).transpose(0, 1))
        results.append(result.transpose(0, 1).reshape(-1, depth, height, width))
    return torch.stack(results)


def _rows(tensor: Tensor, start: int, count: int) -> Tensor:
    """``count`` rows along dimension 2, the first of which is ``start``; zeros outside of the tensor."""
    size = tensor.shape[2]
    low, high = min(max(start, 0), size), max(min(start + count, size), 0)
    inside = tensor.narrow(2, low, max(high - low, 0))
    outside = (min(max(-start, 0), count), min(max(start + count - size, 0), count))  # all of them, in wide padding
    return F.pad(inside, (*(0, 0) * (tensor.ndim - 3), *outside))


def _tuple(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * rank
    return tuple(value) * rank if len(value) == 1 else tuple(value)
