"""What a person wants to know of each group: what ties it together, and how much of the network it touches."""

from dataclasses import dataclass, replace
from math import prod

from secateur.graph.records import ChannelGraph, ChannelGroup, Role

_SHOWN = 2  # modules named per cell of the table


@dataclass(frozen=True)
class GroupFacts:
    """One group in words.

    Attributes:
        written_by: modules that produce its channels; several are tied by an addition or a shared module.
        followed_by: norms and the like that hold one value per channel.
        read_by: modules that consume its channels.
        macs_share: of the network's multiply-adds, those of layers that write or read the group; shares of several
            groups overlap, since a layer reads one and writes another.
        params_share: the same of parameters.
        approximate: why units cannot leave exactly, with the norms that this was seen in; empty where they can.
    """

    group: ChannelGroup
    written_by: tuple[str, ...]
    followed_by: tuple[str, ...]
    read_by: tuple[str, ...]
    macs_share: float
    params_share: float
    approximate: tuple[str, ...]


def describe(graph: ChannelGraph) -> tuple[GroupFacts, ...]:
    """The facts of every group, in the order of execution."""
    macs = _macs(graph)
    params = sum(prod(graph.shapes[name]) for name in graph.parameters)
    return tuple(_facts(graph, group, macs, params) for group in graph.groups)


def width_record(group: ChannelGroup) -> dict[str, int]:
    """A group's ``width`` in records: its channels, and where a unit is several of them how many ``units``."""
    return {"width": group.channels} | ({} if group.width == group.channels else {"units": group.width})


def table(graph: ChannelGraph) -> str:
    """Groups, what is approximate of them, and pinned channels as lines of text."""
    facts = describe(graph)
    widths = [_width(entry.group) for entry in facts]
    name, wide = max([len(entry.group.id) for entry in facts] + [5]), max(map(len, ["channels", *widths]))
    rows = [f"{'group':{name}} {'channels':>{wide}} {'MACs':>6} {'params':>6}  written by <- tied with; read by"]
    rows += [
        f"{entry.group.id:{name}} {width:>{wide}} {entry.macs_share:6.1%} {entry.params_share:6.1%}  "
        f"{_some(entry.written_by)} <- {_some(entry.followed_by)}; {_some(entry.read_by)}"
        for entry, width in zip(facts, widths, strict=True)
    ]
    rows += [f"approximate: {entry.group.id}: {reason}" for entry in facts for reason in entry.approximate]
    rows += [f"pinned: {pin.module or '(network)'} [{pin.channels}]: {pin.reason}" for pin in graph.pinned]
    return "\n".join(rows)


def _facts(graph: ChannelGraph, group: ChannelGroup, macs: int, params: int) -> GroupFacts:
    tensors = {piece.tensor for piece in group.slices}
    writers, readers, ties = (_modules(group, role) for role in (Role.WRITE, Role.READ, Role.TIED))
    touched = replace(graph, layers=tuple(layer for layer in graph.layers if layer.weight in tensors))
    own_params = sum(prod(graph.shapes[name]) for name in tensors & graph.parameters)
    return GroupFacts(
        group,
        writers,
        tuple(module for module in ties if module not in writers + readers),
        readers,
        _macs(touched) / macs if macs else 0.0,
        own_params / params if params else 0.0,
        _approximate(group),
    )


def _approximate(group: ChannelGroup) -> tuple[str, ...]:
    """Each reason once, with its norms."""
    norms: dict[str, list[str]] = {}
    for entry in group.approximations:
        norms.setdefault(entry.reason, []).append(_owner(entry.norm))
    return tuple(f"{reason} (seen in {_some(tuple(seen))})" for reason, seen in norms.items())


def _modules(group: ChannelGroup, role: Role) -> tuple[str, ...]:
    """The modules in whose tensors the group has that role, each once."""
    return tuple(dict.fromkeys(_owner(piece.tensor) for piece in group.slices if piece.role is role))


def _width(group: ChannelGroup) -> str:
    return str(group.channels) + (f" ({group.width} units)" if group.width < group.channels else "")


def _owner(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _macs(graph: ChannelGraph) -> int:
    return sum(layer.macs(graph.shapes.get(layer.weight, ())) for layer in graph.layers)


def _some(modules: tuple[str, ...]) -> str:
    more = f" +{len(modules) - _SHOWN}" if len(modules) > _SHOWN else ""
    return ", ".join(modules[:_SHOWN]) + more or "-"
