"""Which units a network can do without exactly as it is: all that their readers get of them is a constant, or ignored.

A filter whose weights are all zero is not silent: it emits its bias, which norms and activations turn into another
constant. If that is known at every consumer, the constant moves there and the unit leaves:

- into the consumer's bias, where every output element gets all of it: no zero padding, no transposed kernel;
- else into a *carrier*, a channel that the consumer reads as a constant too, other than zero, and that stays. Its input
  slice gets ``sum_i c_i / c_carrier * W[:, i]``. At a border the carrier is missing where the others were.

Legend: Q convolution groups, I input and O output channels of each, T kernel elements.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.graph.records import ChannelGraph, ChannelGroup, GroupId, Role
from secateur.graph.tensors import named_tensors
from secateur.prune.constants import Reading

_LEAST_CARRIER = 1 / 8  # of the largest constant that it carries: its rounding errors grow by no more than the inverse

Unit = tuple[GroupId, int]
Leaving = Mapping[GroupId, Tensor]  # bool (C_g,): True = leaves


@dataclass(frozen=True)
class Survey:
    """What the choice is made from.

    Attributes:
        graph: the groups.
        readings: what each consumer reads, by the name of its weight.
        heard: per consumer bool ``(Q, O, I)``: some weight between these channels is not zero.
    """

    graph: ChannelGraph
    readings: Mapping[str, Reading]
    heard: Mapping[str, Tensor]

    def gone(self, reading: Reading, leaving: Leaving) -> Tensor:
        """Which channels a consumer loses, ``(Q, I)``."""
        line = torch.zeros(reading.site.input_channels, dtype=torch.bool)
        for group, positions, units in reading.site.pieces:
            line[positions] = leaving[group][units]
        return reading.by_group(line)

    def ignored(self, reading: Reading, leaving: Leaving) -> Tensor:
        """Which channels no output channel that stays listens to, ``(Q, I)``."""
        weight = reading.site.weight
        dim = 1 if reading.input_first else 0
        stays = torch.ones(self.graph.shapes[weight][dim], dtype=torch.bool)
        for group in self.graph.groups:
            for piece in group.slices:
                if (piece.tensor, piece.dim, piece.role) == (weight, dim, Role.WRITE):
                    stays[list(piece.positions)] = ~leaving[group.id][list(piece.units)]
        return ~(self.heard[weight] & reading.rows(stays)[:, :, None]).any(1)

    def folded(self, reading: Reading, leaving: Leaving) -> Tensor:
        """Which channels leave constants other than zero to a consumer, ``(Q, I)``."""
        speaks = reading.constants.isfinite() & (reading.constants != 0)
        return self.gone(reading, leaving) & speaks & ~self.ignored(reading, leaving)

    def carriers(self, reading: Reading, leaving: Leaving) -> Tensor:
        """Which channels that stay can carry the constants of those that leave, ``(Q, I)``."""
        constants = reading.constants.abs()
        largest = constants.masked_fill(~self.folded(reading, leaving), 0).amax(1, keepdim=True)
        loud = constants.isfinite() & (constants > 0) & (constants >= _LEAST_CARRIER * largest)
        return loud & ~self.gone(reading, leaving)


def survey(model: nn.Module, graph: ChannelGraph, readings: Mapping[str, Reading]) -> Survey:
    """The survey of a network."""
    weights = named_tensors(model)
    heard = {name: (reading.kernel(weights[name]) != 0).any(-1).cpu() for name, reading in readings.items()}
    return Survey(graph, readings, heard)


def dead_units(model: nn.Module, graph: ChannelGraph) -> dict[GroupId, Tensor]:
    """Units of which at least one filter has no weight other than zero, bool ``(C_g,)`` per group."""
    tensors = named_tensors(model)
    dead = {}
    for group in graph.groups:
        dead[group.id] = torch.zeros(group.width, dtype=torch.bool)
        for piece in group.slices:
            if piece.role is Role.WRITE:
                filters = tensors[piece.tensor].detach().movedim(piece.dim, 0).flatten(1)
                weights = (filters != 0).sum(1).cpu()[list(piece.positions)]
                per_unit = torch.full((group.width,), -1).scatter_reduce_(0, torch.tensor(piece.units), weights, "amax")
                dead[group.id] |= per_unit == 0
    return dead


def choose(found: Survey) -> tuple[Leaving, dict[Unit, str]]:
    """The units that leave, and why some that could stay.

    Units that stay as carriers, or because no group is emptied, go on listening to others; so the choice is made again
    with these until no more are needed.
    """
    kept: dict[Unit, str] = {}
    while True:
        leaving = _free(found, kept)
        needed = _needed(found, {group: units.clone() for group, units in leaving.items()})
        if not needed:
            return leaving, kept
        kept |= needed


def _free(found: Survey, kept: Mapping[Unit, str]) -> Leaving:
    """The largest set of units, ``kept`` apart, of which every consumer that stays knows all it gets."""
    leaving = {group.id: torch.zeros(group.width, dtype=torch.bool) for group in found.graph.groups}
    while True:
        free = {group.id: _may_leave(found, group) for group in found.graph.groups}
        for group, unit in kept:
            free[group][unit] = False
        for reading in found.readings.values():
            known = reading.everywhere(reading.constants.isfinite() | found.ignored(reading, leaving))
            for group, positions, units in reading.site.pieces:
                free[group][units[~known[positions]]] = False
        if all(torch.equal(free[group], leaving[group]) for group in free):
            return leaving
        leaving = free


def _may_leave(found: Survey, group: ChannelGroup) -> Tensor:
    """All units of a group whose consumers are known, each of them seen; none of any other."""
    reads = {read.tensor for read in group.reads()}
    may = bool(reads) and group.exact and reads <= found.readings.keys()
    return torch.full((group.width,), may)


def _needed(found: Survey, leaving: dict[GroupId, Tensor]) -> dict[Unit, str]:
    """Units taken out of ``leaving``, in place, so that no group is empty and every consumer has its carriers."""
    needed: dict[Unit, str] = {}
    for group, units in leaving.items():
        if bool(units.all()):
            unit = int(_loudness(found, group, leaving).argmax())
            needed[group, unit] = "no group is emptied"
            units[unit] = False
    for reading in sorted(found.readings.values(), key=lambda reading: len(reading.site.pieces)):
        if reading.bias is not None and not reading.borders:
            continue
        for q in range(len(reading.constants)):
            folded = found.folded(reading, leaving)[q]
            if not bool(folded.any()) or bool(found.carriers(reading, leaving)[q].any()):
                continue
            loudest = int(reading.constants[q].abs().masked_fill(~folded, 0).argmax())
            group, unit = _unit_at(reading, q, loudest)
            needed[group, unit] = f"it carries the constants that {reading.site.weight} reads"
            leaving[group][unit] = False
    return needed


def _loudness(found: Survey, group: GroupId, leaving: Leaving) -> Tensor:
    """The largest constant that a consumer which needs carriers reads of each unit, ``(C_g,)``."""
    loudness = torch.zeros(len(leaving[group]), dtype=torch.float64)
    for reading in found.readings.values():
        if reading.bias is None or reading.borders:
            constants = reading.constants.abs().masked_fill(~found.folded(reading, leaving), 0)
            line = constants.reshape(-1, reading.site.input_channels).amax(0)
            for name, positions, units in reading.site.pieces:
                if name == group:
                    loudness.scatter_reduce_(0, units, line[positions], "amax")
    return loudness


def _unit_at(reading: Reading, q: int, channel: int) -> Unit:
    """The unit to which an input channel of convolution group ``q`` belongs."""
    position = (q * reading.constants.shape[1] + channel) % reading.site.input_channels
    for group, positions, units in reading.site.pieces:
        place = (positions == position).nonzero()
        if len(place):
            return group, int(units[place[0, 0]])
    raise AssertionError(f"no group has channel {position} of {reading.site.weight}")


def reason(found: Survey, group: GroupId, unit: int) -> str:
    """Why a unit that is no carrier has to stay: the first consumer that does not know all it gets of it."""
    if not found.graph.group(group).exact:
        return "its group is approximate"
    for read in found.graph.group(group).reads():
        reading = found.readings.get(read.tensor)
        if reading is None:
            return f"{read.tensor} was not seen to read it"
        line = torch.zeros(reading.site.input_channels, dtype=torch.bool)
        line[[position for position, owner in zip(read.positions, read.units, strict=True) if owner == unit]] = True
        constants = reading.constants[reading.by_group(line)]
        if bool(constants.isnan().any()):
            return f"{read.tensor} sees it change with the input"
        if bool(constants.isinf().any()):
            return f"{read.tensor} sees it differ between positions, calls or sizes"
    return "no consumer of it is known"


@dataclass(frozen=True)
class Fold:
    """Constants that moved into a consumer.

    Attributes:
        reader: the name of its weight.
        channels: how many constants other than zero.
        bias: the parameter that took them; None where carriers did.
        carriers: else the input channels, of the network before, whose slices took them: one per convolution group.
    """

    reader: str
    channels: int
    bias: str | None
    carriers: tuple[int, ...]


@torch.no_grad()
def fold_(model: nn.Module, found: Survey, leaving: Leaving) -> tuple[Fold, ...]:
    """Move the constants of the units that leave into their consumers, which need not read them any more.

    Args:
        model: changed in place, in its biases and its consumers' weights.
        found: of this model.
        leaving: what `choose` chose.
    """
    tensors = named_tensors(model)
    folds = []
    for name, reading in found.readings.items():
        folded = found.folded(reading, leaving)
        if not bool(folded.any()):
            continue
        weight = tensors[name]
        kernel = reading.kernel(weight)
        constants = reading.constants.to(kernel)
        amounts = constants.masked_fill(~folded.to(kernel.device), 0)
        carriers: tuple[int, ...] = ()
        bias = None if reading.borders else reading.bias
        if bias is not None:
            tensors[bias] += torch.einsum("qoit,qi->qo", kernel, amounts).flatten().to(tensors[bias])
        else:
            can = found.carriers(reading, leaving)
            loudest = reading.constants.abs().masked_fill(~can, 0).argmax(1).tolist()
            for q in folded.any(1).nonzero().flatten().tolist():
                carrier = loudest[q]
                kernel[q, :, carrier] += torch.einsum("oit,i->ot", kernel[q], amounts[q] / constants[q, carrier])
                carriers += (q * constants.shape[1] + carrier,)
            weight.copy_(reading.weight(kernel, weight))
        folds.append(Fold(name, int(folded.sum()), bias, carriers))
    return tuple(folds)
