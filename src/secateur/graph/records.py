"""What tracing finds, as plain data: groups of channels, the tensors that hold them, pins, and layers."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from math import prod
from typing import NewType

import torch

GroupId = NewType("GroupId", str)

Kept = Mapping[GroupId, tuple[int, ...]]  # ascending kept units; a group that is absent keeps all


class Role(Enum):
    """What a dimension of a parameter does with the channels it holds."""

    WRITE = "write"  # produces them: the output dimension of a convolution
    TIED = "tied"  # follows them: biases, norms, running statistics
    READ = "read"  # consumes them: the input dimension of a convolution
    WIDTH = "width"  # only counts them: ``num_heads`` of an attention, ``num_groups`` of a norm


@dataclass(frozen=True)
class Slice:
    """Where the units of one group sit along one dimension of a parameter or buffer.

    ``positions[i]`` belongs to unit ``units[i]``; a unit may hold several positions, and a position stands for
    ``channels`` channels: one, or one of each group of a grouped convolution. With the role ``WIDTH``, ``tensor`` names
    an integer attribute of a module instead.
    """

    tensor: str
    dim: int
    role: Role
    positions: tuple[int, ...]
    units: tuple[int, ...]
    channels: int = 1


@dataclass(frozen=True)
class Approximation:
    """A norm that takes other statistics once units have left, so that what stays is normalised by other numbers.

    Attributes:
        norm: the name of its scale.
        reason: which statistics, in words.
    """

    norm: str
    reason: str


@dataclass(frozen=True)
class ChannelGroup:
    """A family of interchangeable units: same producers, same consumers.

    Attributes:
        id: the name of the module that writes it first.
        width: how many units there are, C_g.
        slices: where they sit.
        approximations: the norms that change when units leave; none unless the caller of `secateur.trace` asked.
    """

    id: GroupId
    width: int
    slices: tuple[Slice, ...]
    approximations: tuple[Approximation, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the network without some units computes what it does when their consumers read zero."""
        return not self.approximations

    @property
    def channels(self) -> int:
        """How many channels its units are, of the module that writes it first."""
        return self.width * self._per_unit(self._writer)

    @cached_property
    def unit_channels(self) -> int:
        """How many channels a unit is where it is fewest, of those that the first writer makes and any layer reads.

        One for most groups; all of a norm group; of an attention head what its projection reads, not queries, keys and
        values together; what is left of a filter behind a pixel shuffle.
        """
        return min(self._per_unit(piece) for piece in (self._writer, *self.reads()))

    @property
    def _writer(self) -> Slice:
        return next(piece for piece in self.slices if piece.role is Role.WRITE)

    def _per_unit(self, piece: Slice) -> int:
        return len(piece.positions) * piece.channels // self.width

    def reads(self) -> tuple[Slice, ...]:
        """The slices through which this group is consumed."""
        return tuple(piece for piece in self.slices if piece.role is Role.READ)


@dataclass(frozen=True)
class Pin:
    """Channels that must stay, and why."""

    module: str
    reason: str
    channels: int


@dataclass(frozen=True)
class Layer:
    """One multiplying call: it costs ``positions`` multiply-adds per sample for every element of ``weight``.

    A product of two activations costs them for every index along ``dims`` of a weight that shrinks as it does, or, with
    no dimension, a fixed number.
    """

    weight: str
    positions: int
    dims: tuple[int, ...] | None = None  # of ``weight``; None: all

    def macs(self, shape: Sequence[int]) -> int:
        """Multiply-adds per sample when the weight has this shape."""
        return self.positions * prod(shape if self.dims is None else (shape[dim] for dim in self.dims))


@dataclass(frozen=True)
class InputSpec:
    """Shape and type of one input tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class ChannelGraph:
    """Which channels of a network stand and fall together.

    Attributes:
        groups: what can be removed, in the order of execution.
        pinned: what cannot, with the reason.
        layers: every multiplying call of the eval-mode forward, for counting MACs.
        shapes: of all parameters and buffers, by first qualified name.
        parameters: the names in ``shapes`` that are parameters.
        inputs: the example's inputs; counts of MACs hold for one sample of this size.
        patch: small inputs that the network accepts, used for proofs; see `secateur.graph.patch.minimal_patch`.
        seconds: what tracing took.
    """

    groups: tuple[ChannelGroup, ...]
    pinned: tuple[Pin, ...]
    layers: tuple[Layer, ...]
    shapes: Mapping[str, tuple[int, ...]]
    parameters: frozenset[str]
    inputs: tuple[InputSpec, ...]
    patch: tuple[InputSpec, ...]
    seconds: float

    def group(self, group_id: GroupId) -> ChannelGroup:
        """The group of that name; ``KeyError`` where there is none."""
        for group in self.groups:
            if group.id == group_id:
                return group
        raise KeyError(group_id)

    def approximated(self, kept: Kept) -> tuple[str, ...]:
        """The scales of the norms whose statistics change when every group keeps only ``kept``."""
        losing = [group for group in self.groups if len(kept.get(group.id, range(group.width))) < group.width]
        return tuple(dict.fromkeys(entry.norm for group in losing for entry in group.approximations))

    def keep(self, kept: Kept) -> "ChannelGraph":
        """The graph of the network in which every group keeps only ``kept``: no second trace."""
        removed = removed_positions(self, kept)
        shapes = {
            name: tuple(size - len(removed.get((name, dim), ())) for dim, size in enumerate(shape))
            for name, shape in self.shapes.items()
        }
        groups = tuple(_shrink_group(group, kept.get(group.id), removed) for group in self.groups)
        return replace(self, groups=groups, shapes=shapes)

    def __str__(self) -> str:
        from secateur.graph.describe import table  # which stands on these records

        return table(self)


def removed_positions(graph: ChannelGraph, kept: Kept) -> dict[tuple[str, int], set[int]]:
    """The positions to drop, per tensor name and dimension."""
    removed: dict[tuple[str, int], set[int]] = {}
    for group in graph.groups:
        if group.id not in kept:
            continue
        survivors = set(kept[group.id])
        for piece in group.slices:
            gone = {
                position for position, unit in zip(piece.positions, piece.units, strict=True) if unit not in survivors
            }
            if gone:
                removed.setdefault((piece.tensor, piece.dim), set()).update(gone)
    return removed


def _shrink_group(
    group: ChannelGroup, kept: tuple[int, ...] | None, removed: Mapping[tuple[str, int], set[int]]
) -> ChannelGroup:
    units = kept if kept is not None else tuple(range(group.width))
    new_unit = {old: new for new, old in enumerate(units)}
    slices = tuple(_shrink_slice(piece, new_unit, removed) for piece in group.slices)
    return replace(group, width=len(units), slices=slices)


def _shrink_slice(piece: Slice, new_unit: Mapping[int, int], removed: Mapping[tuple[str, int], set[int]]) -> Slice:
    gone = sorted(removed.get((piece.tensor, piece.dim), ()))
    pairs = [
        (position - bisect_left(gone, position), new_unit[unit])
        for position, unit in zip(piece.positions, piece.units, strict=True)
        if unit in new_unit
    ]
    return replace(piece, positions=tuple(p for p, _ in pairs), units=tuple(u for _, u in pairs))
