"""Operators between tensors, element by element with broadcasting: channels that meet are tied."""

from collections.abc import Sequence

import numpy as np

from secateur.graph.labels import Channels, Labels, ParameterValue, Value, along
from secateur.graph.records import Role
from secateur.graph.walk import Call

_UNTRACKED = "operator {} meets a tensor whose channels are not tracked"


Operand = tuple[Value, tuple[int, ...]]  # what is known of a tensor, and its shape


def pointwise(call: Call) -> Value:
    """Any number of tensors of shapes that broadcast, as in residual sums, gates, masks and position embeddings."""
    operands = [(call.value(name), call.shape(name)) for name in call.tensors()]
    if not any(isinstance(value, Channels) for value, _ in operands):
        return _of_parameters(call)
    if call.in_place and operands[0][0] is None:  # what is written into an untracked tensor is lost from sight
        return call.unknown()
    labels = combine(call, operands)
    return None if labels is None else Channels(labels)


def combine(call: Call, operands: Sequence[Operand]) -> Labels | None:
    """The labels of the result of an operation element by element, of the broadcast rank; at least one is labelled."""
    rank = max(len(shape) for _, shape in operands)
    labelled = [(v.labels, shape) for v, shape in operands if isinstance(v, Channels)]
    labels, shape = _padded(labelled[0][0], rank), _padded_shape(labelled[0][1], rank)
    for met_labels, met_shape in labelled[1:]:
        met = meet(call, (labels, shape), (_padded(met_labels, rank), _padded_shape(met_shape, rank)))
        if met is None:
            return None
        labels, shape = met, tuple(np.broadcast_shapes(shape, met_shape))
    for value, other in operands:
        if isinstance(value, ParameterValue):
            labels = _meet_parameter(call, labels, value, _padded_shape(other, rank))
        elif not isinstance(value, Channels):
            labels = _meet_untracked(call, labels, _padded_shape(other, rank))
    return labels


def meet(call: Call, first: tuple[Labels, tuple[int, ...]], second: tuple[Labels, tuple[int, ...]]) -> Labels | None:
    """The labels of what two labelled tensors (labels, shape) of one rank give, element by element.

    Where one is labelled along a dimension along which the other has several elements without labels, those
    labels leave together. Where one is broadcast over dimensions of the other, so do the other's.
    """
    (a, a_shape), (b, b_shape) = first, second
    one, other = _against(call, a, b, b_shape), _against(call, b, a, a_shape)
    if one is None or other is None:
        for labels in (a, b):
            call.pin_labels(labels, _UNTRACKED.format(call.operator))
        wide = max(a, b, key=lambda labels: labels.size)
        return wide if np.broadcast_shapes(a.shape, b.shape) == wide.shape else None
    narrow, wide = sorted((one, other), key=lambda labels: labels.size)
    if narrow.size == 1 < wide.size:
        call.space.spread(narrow)
        return wide
    if any(size > 1 and wide.shape[dim] == 1 for dim, size in enumerate(narrow.shape)):
        for labels in (narrow, wide):
            call.pin_labels(labels, f"{call.operator} crosses two kinds of channels")
        return None
    call.space.unite(np.broadcast_to(narrow, wide.shape), wide)
    return wide


def _against(call: Call, labels: Labels, other: Labels, other_shape: tuple[int, ...]) -> Labels | None:
    """``labels`` after meeting elements of another tensor that carry no labels along one of their dimensions."""
    dims = [d for d, size in enumerate(labels.shape) if size > 1 and other.shape[d] == 1 and other_shape[d] > 1]
    return call.mix(labels, dims, _UNTRACKED.format(call.operator))


def _meet_parameter(call: Call, labels: Labels, value: ParameterValue, shape: tuple[int, ...]) -> Labels:
    met = [dim for dim, size in enumerate(labels.shape) if size > 1 and shape[dim] > 1]
    left = call.mix(labels, met[1:])
    if not met or left is None:
        call.touch(value)
        return labels
    tied = along(call.slot(value, met[0] - (len(shape) - len(value.shape)), Role.TIED), met[0], len(shape))
    call.space.unite(np.broadcast_to(tied, left.shape), left)
    return left


def _meet_untracked(call: Call, labels: Labels, shape: tuple[int, ...]) -> Labels:
    dims = [dim for dim, size in enumerate(labels.shape) if size > 1 and shape[dim] > 1]
    left = call.mix(labels, dims, _UNTRACKED.format(call.operator))
    return labels if left is None else left


def _of_parameters(call: Call) -> Value:
    """A parameter scaled by literals keeps its channels; two, or one and an untracked tensor, are not followed."""
    tensors = call.tensors()
    values = [call.value(name) for name in tensors]
    if len(values) == 1 and isinstance(values[0], ParameterValue) and sum(s > 1 for s in values[0].shape) < 2:
        labels = call.labels(tensors[0])
        return None if labels is None else Channels(labels)
    return call.unknown()


def _padded(labels: Labels, rank: int) -> Labels:
    return labels.reshape(*(1,) * (rank - labels.ndim), *labels.shape)


def _padded_shape(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (*(1,) * (rank - len(shape)), *shape)
