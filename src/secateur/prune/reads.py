"""Gates: factors on what each consumer reads. Masks, Taylor scores and the proof all use them.

A gate is applied where a consumer's weight meets its input, whatever module or function calls it there: calls are
recognised by the identity of the weight, so the network itself is not edited.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.graph.records import ChannelGraph, GroupId, Kept
from secateur.graph.tensors import named_tensors

_CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
_PRODUCTS = {F.linear, torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}  # along the last dimension


@dataclass(frozen=True)
class ReadSite:
    """One consumer: which of its input channels belong to which unit of which group.

    ``pieces`` holds (group, positions ``(P,)``, units ``(P,)``): position ``positions[i]`` of the weight's input
    dimension is unit ``units[i]``. Grouped convolutions repeat these positions in every convolution group.
    """

    weight: str
    input_channels: int
    pieces: tuple[tuple[GroupId, Tensor, Tensor], ...]

    def factors(self, gates: Mapping[GroupId, Tensor], like: Tensor) -> Tensor:
        """Gather gates ``(C_g,)`` or ``(N, C_g)`` into the factor of each input channel, 1 where none applies."""
        batch = next((gate.shape[:-1] for gate in gates.values()), torch.Size(()))
        factors = like.new_ones((*batch, self.input_channels))
        for group, positions, units in self.pieces:
            if group in gates:
                factors[..., positions] = gates[group].to(like)[..., units]
        return factors


Gate = Callable[[ReadSite, Tensor, int], Tensor]
"""(site, tensor that the consumer reads, its channel dimension) -> what the consumer reads instead."""


class GatedReads(TorchFunctionMode):
    """While active, every read of a group in ``graph`` passes through ``gate``."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        tensors = named_tensors(model)
        self._sites = {id(tensors[site.weight]): site for site in read_sites(graph)}

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS or func in _PRODUCTS:
            weight: Any = args[1] if len(args) > 1 else kwargs.get("weight")
            site = self._sites.get(id(weight))
            if site is not None:
                read = args[0] if args else kwargs["input"]
                dim = read.ndim - weight.ndim + 1 if func in _CONVOLUTIONS else read.ndim - 1
                gated = self._gate(site, read, dim)
                if args:
                    args = (gated, *args[1:])
                else:
                    kwargs = {**kwargs, "input": gated}
        return func(*args, **kwargs)


def read_sites(graph: ChannelGraph) -> list[ReadSite]:
    """Every consumer of a group, each weight once."""
    pieces: dict[tuple[str, int], list[tuple[GroupId, Tensor, Tensor]]] = {}
    for group in graph.groups:
        for read in group.reads():
            entry = (group.id, torch.tensor(read.positions), torch.tensor(read.units))
            pieces.setdefault((read.tensor, read.dim), []).append(entry)
    return [ReadSite(weight, graph.shapes[weight][dim], tuple(found)) for (weight, dim), found in pieces.items()]


def masks(graph: ChannelGraph, kept: Kept) -> dict[GroupId, Tensor]:
    """Gates of shape ``(C_g,)``: 1 for kept units, 0 for the others."""
    gates = {}
    for group in graph.groups:
        if group.id in kept:
            gates[group.id] = torch.zeros(group.width)
            gates[group.id][list(kept[group.id])] = 1
    return gates


def gated(model: nn.Module, graph: ChannelGraph, gates: Mapping[GroupId, Tensor]) -> GatedReads:
    """A context in which every consumer in ``model`` reads its input times ``gates``.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its groups.
        gates: per group ``(C_g,)``, or ``(N, C_g)`` for one factor per sample. Groups that are absent pass.
    """
    return GatedReads(model, graph, lambda site, read, dim: _scale(site, read, dim, gates))


@contextmanager
def contributions(model: nn.Module, graph: ChannelGraph, report: Callable[[ReadSite, Tensor], None]) -> Iterator[None]:
    """While active, a backward pass hands ``report`` the gradient of every read's gate at 1.

    That is, per sample and input channel, the sum over positions of activation times gradient, ``(N, C_in)``. It
    is reported from inside the backward pass, which costs no memory beyond what the pass itself keeps. Where a
    consumer reads several windows of each sample, one sample's after the other's, their terms are added.
    """
    anchor = torch.zeros((), requires_grad=True)
    samples: list[int] = []

    def gate(site: ReadSite, read: Tensor, dim: int) -> Tensor:
        count = samples[-1] if samples and len(read) % samples[-1] == 0 else len(read)
        result: Tensor = _ReportGateGradient.apply(  # type: ignore[no-untyped-call]
            read, anchor, dim, lambda terms: report(site, terms.reshape(count, -1, terms.shape[1]).sum(1))
        )
        return result

    hook = model.register_forward_pre_hook(lambda _, args: samples.extend(map(len, args[:1])))
    try:
        with GatedReads(model, graph, gate):
            yield
    finally:
        hook.remove()


class _ReportGateGradient(torch.autograd.Function):
    """The identity; going backward it reports the sum of input times gradient over all positions."""

    @staticmethod
    def forward(
        ctx: Any,  # torch's context object
        read: Tensor,
        anchor: Tensor,
        dim: int,
        report: Callable[[Tensor], None],
    ) -> Tensor:
        ctx.save_for_backward(read)
        ctx.dim, ctx.report = dim, report
        return read.view_as(read)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        (read,) = ctx.saved_tensors
        product = (read * gradient).movedim(ctx.dim, 1)
        ctx.report(product.flatten(2).sum(-1) if product.ndim > 2 else product)
        return (gradient if ctx.needs_input_grad[0] else None), None, None, None


def unit_terms(site: ReadSite, terms: Tensor, group: GroupId, width: int) -> Tensor:
    """Add the terms ``(N, C_in)`` of a read to the units of ``group``: ``(N, C_g)``."""
    summed = terms.new_zeros((terms.shape[0], width))
    folded = _fold_convolution_groups(terms, site.input_channels)
    for name, positions, units in site.pieces:
        if name == group:
            summed.index_add_(1, units.to(terms.device), folded[:, positions.to(terms.device)])
    return summed


def _fold_convolution_groups(terms: Tensor, channels: int) -> Tensor:
    return terms.reshape(len(terms), -1, channels).sum(1)


def _scale(site: ReadSite, read: Tensor, dim: int, gates: Mapping[GroupId, Tensor]) -> Tensor:
    factors = site.factors(gates, read)
    convolution_groups = read.shape[dim] // site.input_channels
    factors = factors.repeat(*(1,) * (factors.ndim - 1), convolution_groups)
    shape = [1] * read.ndim
    shape[dim] = factors.shape[-1]
    if factors.ndim == 2:  # one row per sample, of which a consumer may read several windows
        factors = factors.repeat_interleave(len(read) // len(factors), 0)
        shape[0] = len(factors)
    return read * factors.reshape(shape)
