"""The masked network of an approximate removal: norms take their statistics over the channels that stay."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.graph.records import ChannelGraph, Kept
from secateur.graph.tensors import named_tensors


class KeptStatistics(TorchFunctionMode):
    """While active, every GroupNorm that ``graph`` approximates normalises by the channels that ``kept`` leaves of it.

    Together with gates at zero, this is what an approximate removal has to equal. All channels are normalised, those
    that leave too, and the graph's indices are used to weigh them only, so that a wrong one shows. Calls are recognised
    by the identity of the norm's scale. Nothing changes where the graph is exact.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, kept: Kept) -> None:
        super().__init__()
        tensors = named_tensors(model)
        self._staying = {id(tensors[norm]): _staying(graph, kept, norm) for norm in graph.approximated(kept)}

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.group_norm or func is torch.group_norm:
            scale: Any = args[2] if len(args) > 2 else kwargs.get("weight")
            if id(scale) in self._staying:
                return _group_norm(self._staying[id(scale)], *args, **kwargs)
        return func(*args, **kwargs)


def _staying(graph: ChannelGraph, kept: Kept, norm: str) -> Tensor:
    """1 for each channel ``(C,)`` of a norm that stays, 0 for the others."""
    staying = torch.ones(graph.shapes[norm])
    for group in graph.groups:
        left = kept.get(group.id, range(group.width))
        for piece in group.slices:
            if piece.tensor == norm:
                pairs = zip(piece.positions, piece.units, strict=True)
                staying[[position for position, unit in pairs if unit not in left]] = 0
    return staying


def _group_norm(
    staying: Tensor,
    input: Tensor,  # noqa: A002  (torch's name)
    num_groups: int,
    weight: Tensor,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """`torch.group_norm` of ``(N, C, ...)`` with mean and variance weighted by ``staying`` ``(C,)``."""
    grouped = input.reshape(len(input), num_groups, input.shape[1] // num_groups, -1)
    weights = staying.to(input).reshape(1, num_groups, -1, 1)
    count = weights.sum(2, keepdim=True) * grouped.shape[3]
    centred = grouped - (grouped * weights).sum((2, 3), keepdim=True) / count
    variance = (centred.square() * weights).sum((2, 3), keepdim=True) / count
    line = (1, -1, *(1,) * (input.ndim - 2))
    scaled = (centred / (variance + eps).sqrt()).reshape(input.shape) * weight.reshape(line)
    return scaled if bias is None else scaled + bias.reshape(line)
