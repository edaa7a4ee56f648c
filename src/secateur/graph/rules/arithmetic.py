"""Addition, multiplication and their like between two tensors: channels that meet are tied."""

from secateur.graph.labels import Channels, ParameterValue, Value
from secateur.graph.records import Role
from secateur.graph.walk import Call


def arithmetic(call: Call) -> Value:
    """Elementwise with broadcasting from the right, as in squeeze-and-excitation and attention gates."""
    first, second = call.value("self"), call.value("other")
    rank = len(call.out_shape())
    if isinstance(first, Channels) and isinstance(second, Channels):
        return _meet(call, first, second, rank)
    if isinstance(first, Channels):
        return _against(call, first, "self", "other", rank)
    if isinstance(second, Channels):
        return _against(call, second, "other", "self", rank)
    return None


def _meet(call: Call, first: Channels, second: Channels, rank: int) -> Value:
    dim = first.dim + rank - len(call.shape("self"))
    if second.dim + rank - len(call.shape("other")) != dim:
        return call.unknown()
    if len(first.labels) == len(second.labels):
        call.space.unite(first.labels, second.labels)
        return Channels(dim, first.labels)
    narrow, wide = sorted((first, second), key=lambda channels: len(channels.labels))
    call.space.spread(narrow.labels)
    return Channels(dim, wide.labels)


def _against(call: Call, channels: Channels, own: str, other: str, rank: int) -> Value:
    """``channels`` meets a parameter, an untracked tensor or a literal."""
    dim = channels.dim + rank - len(call.shape(own))
    other_shape = call.shape(other)
    other_dim = dim - (rank - len(other_shape))
    if other_dim < 0 or other_shape[other_dim] == 1:
        return Channels(dim, channels.labels)
    value = call.value(other)
    if len(channels.labels) == other_shape[other_dim] and isinstance(value, ParameterValue):
        call.space.unite(channels.labels, call.slot(value, other_dim, Role.TIED))
        return Channels(dim, channels.labels)
    return call.unknown()
