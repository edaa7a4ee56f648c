"""Multiply-adds and parameters: predicted from the graph's records, and counted by torch's own counter."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateur.graph.records import ChannelGraph, Layer

_FLOPS_PER_MAC = 2


def graph_macs(graph: ChannelGraph) -> int:
    """Multiply-adds of one sample of the traced size: layers and products of activations, biases not counted."""
    return sum(layer.macs(graph.shapes.get(layer.weight, ())) for layer in graph.layers)


def graph_params(graph: ChannelGraph) -> int:
    """Number of parameters, each shared one once."""
    return sum(prod(graph.shapes[name]) for name in graph.parameters)


def count_params(model: nn.Module) -> int:
    """Number of parameters of a network, each shared one once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example: Tensor | Sequence[Tensor]) -> int:
    """Multiply-adds of one eval-mode forward of ``example`` divided by its batch size, by torch's counter."""
    return sum(macs for _, macs in macs_by_module(model, example))


def macs_by_module(model: nn.Module, example: Tensor | Sequence[Tensor]) -> list[tuple[str, int]]:
    """(module, multiply-adds per sample) of every leaf module that multiplies, by torch's counter.

    The network runs once in eval mode, without gradients, fused attention taken apart; its mode is restored.
    """
    arguments = (example,) if isinstance(example, Tensor) else tuple(example)
    modes = {module: module.training for module in model.modules()}
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            model.eval()(*arguments)
    finally:
        for module, training in modes.items():
            module.training = training
    counts = counter.get_flop_counts()
    root = type(model).__name__
    leaves = {
        f"{root}.{name}": name
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    }
    batch = arguments[0].shape[0]
    found = [
        (leaves[path], sum(flops.values()) // _FLOPS_PER_MAC // batch)
        for path, flops in counts.items()
        if path in leaves
    ]
    rest = counter.get_total_flops() // _FLOPS_PER_MAC // batch - sum(macs for _, macs in found)
    return found + ([("(outside leaf modules)", rest)] if rest else [])


class WidthCost:
    """The cost of a network as a function of how many units each group keeps, fast enough to search over.

    Every dimension of every tensor shrinks by a fixed number of positions per unit removed, since the units
    of a group are interchangeable. ``macs`` and ``params`` then need only counts, not indices, and from one call to the
    next only the tensors of groups whose count changed.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._shapes = graph.shapes
        self._parameters = frozenset(graph.parameters)
        self._layers: dict[str, list[Layer]] = {}
        for layer in graph.layers:
            self._layers.setdefault(layer.weight, []).append(layer)
        self._per_unit: dict[str, list[tuple[int, int, int]]] = {}
        for index, group in enumerate(graph.groups):
            for piece in group.slices:
                per_unit = len(piece.positions) // group.width
                self._per_unit.setdefault(piece.tensor, []).append((piece.dim, index, per_unit))
        self._removed = [0] * len(graph.groups)
        self._costs = {name: self._cost(name) for name in {*graph.shapes, *self._layers}}
        self._tensors = [{piece.tensor for piece in group.slices} & self._costs.keys() for group in graph.groups]
        self._total = [sum(costs) for costs in zip((0, 0), *self._costs.values(), strict=True)]

    def macs(self, removed: Sequence[int]) -> int:
        """Multiply-adds per sample after removing ``removed[g]`` units of group g."""
        return self._at(removed)[0]

    def params(self, removed: Sequence[int]) -> int:
        """Parameters after removing ``removed[g]`` units of group g."""
        return self._at(removed)[1]

    def _at(self, removed: Sequence[int]) -> list[int]:
        moved = [g for g, (before, now) in enumerate(zip(self._removed, removed, strict=True)) if before != now]
        self._removed = list(removed)
        for name in {name for group in moved for name in self._tensors[group]}:
            before, now = self._costs[name], self._cost(name)
            self._costs[name] = now
            self._total = [total - old + new for total, old, new in zip(self._total, before, now, strict=True)]
        return self._total

    def _cost(self, tensor: str) -> tuple[int, int]:
        """Multiply-adds and parameters of one tensor at the widths that hold now."""
        shape = list(self._shapes.get(tensor, ()))
        for dim, group, per_unit in self._per_unit.get(tensor, ()):
            shape[dim] -= per_unit * self._removed[group]
        macs = sum(layer.macs(shape) for layer in self._layers.get(tensor, ()))
        return macs, prod(shape) if tensor in self._parameters else 0
