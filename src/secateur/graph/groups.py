"""From labels to groups: united labels are units, units with the same producers and consumers a group."""

from collections import Counter
from collections.abc import Mapping

from secateur.graph.labels import LabelSpace, Reason
from secateur.graph.records import Approximation, ChannelGroup, GroupId, Pin, Role, Slice

Place = tuple[str, int]  # (tensor, dimension)
Occurrences = dict[int, list[tuple[Place, int]]]  # representative label -> where it sits


def form_groups(space: LabelSpace) -> tuple[tuple[ChannelGroup, ...], tuple[Pin, ...]]:
    """Divide the labels that parameters carry into removable groups and pinned channels."""
    roles: dict[Place, Role] = {}
    occurrences: Occurrences = {}
    for tensor, dim, role, labels in space.slots():
        roles[tensor, dim] = role
        for position, label in enumerate(labels.tolist()):
            occurrences.setdefault(label, []).append(((tensor, dim), position))
    written = {
        label: places for label, places in occurrences.items() if any(roles[place] is Role.WRITE for place, _ in places)
    }
    families: dict[frozenset[tuple[Place, int]], list[int]] = {}
    reasons = space.pins()
    for label, places in written.items():
        if label not in reasons:
            signature = frozenset(Counter(place for place, _ in places).items())
            families.setdefault(signature, []).append(label)
    _pin_spread(families, space.spread_representatives(), reasons)
    _pin_inseparable(families, reasons)
    made = [_make_slices(family, written, roles, space) for family in families.values() if family]
    groups = _name_groups(made, space.approximations())
    return groups, _pins(written, reasons, roles, space)


def _pin_spread(
    families: Mapping[frozenset[tuple[Place, int]], list[int]], spread: set[int], reasons: dict[int, Reason]
) -> None:
    """A channel spread over others stays; alone in its group it does anyway, since no group is emptied."""
    for family in families.values():
        for label in spread.intersection(family) if len(family) > 1 else ():
            family.remove(label)
            reasons[label] = Reason("", "one channel is spread over all others")


def _pin_inseparable(families: Mapping[frozenset[tuple[Place, int]], list[int]], reasons: dict[int, Reason]) -> None:
    """Several channels that are the only unit of their group stay, since no group is emptied."""
    for signature, family in families.items():
        if len(family) == 1 and any(count > 1 for _, count in signature):
            reasons[family.pop()] = Reason("", "these channels can only leave all at once, which empties the group")


def _make_slices(
    family: list[int], written: Occurrences, roles: Mapping[Place, Role], space: LabelSpace
) -> tuple[int, tuple[Slice, ...]]:
    pieces: dict[Place, list[tuple[int, int]]] = {}
    for unit, label in enumerate(family):
        for place, position in written[label]:
            pieces.setdefault(place, []).append((position, unit))
    slices = []
    for (tensor, dim), pairs in pieces.items():
        positions, units = zip(*sorted(pairs), strict=True)
        slices.append(Slice(tensor, dim, roles[tensor, dim], positions, units, space.channels(tensor, dim)))
    return len(family), tuple(slices)


def _name_groups(
    families: list[tuple[int, tuple[Slice, ...]]], approximations: Mapping[str, Approximation]
) -> tuple[ChannelGroup, ...]:
    """Name each group after the module that first writes it; further groups of that module are numbered."""
    taken: Counter[str] = Counter()
    groups = []
    for width, slices in families:
        name = _module_of(next(piece.tensor for piece in slices if piece.role is Role.WRITE))
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
        inexact = tuple(approximations[piece.tensor] for piece in slices if piece.tensor in approximations)
        groups.append(ChannelGroup(GroupId(unique), width, slices, inexact))
    return tuple(groups)


def _pins(
    written: Occurrences, reasons: Mapping[int, Reason], roles: Mapping[Place, Role], space: LabelSpace
) -> tuple[Pin, ...]:
    counts: Counter[tuple[str, str]] = Counter()
    for label, places in written.items():
        if label in reasons:
            for (tensor, dim), _ in places:
                if roles[tensor, dim] is Role.WRITE:
                    counts[_module_of(tensor), _text(reasons[label])] += space.channels(tensor, dim)
    return tuple(Pin(module, reason, count) for (module, reason), count in counts.items())


def _text(reason: Reason) -> str:
    return f"{reason.text} (seen in {reason.module})" if reason.module else reason.text


def _module_of(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor
