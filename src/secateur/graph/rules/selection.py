"""Parts of a tensor: an operator that picks indices along a labelled dimension picks their labels."""

from collections.abc import Sequence

import numpy as np

from secateur.graph.labels import Channels, Labels, ParameterValue, Value
from secateur.graph.walk import Call


def select(call: Call) -> Value:
    """One index along a dimension, which goes."""
    labels = call.labels("self")
    if labels is None:
        return None
    dim = int(call.constant("dim")) % labels.ndim
    return Channels(_one(labels, dim, int(call.constant("index"))))


def slice_(call: Call) -> Value:
    """From start to end in steps. One of two halves, whose place is computed from the width, is tied to the other."""
    value, labels = call.value("self"), None
    dim = int(call.constant("dim")) % len(call.shape("self"))
    if isinstance(value, ParameterValue) and call.out_shape() == value.shape:
        return value
    labels = call.labels("self")
    if labels is None:
        return None
    if call.operator == "narrow":
        start = int(call.constant("start"))
        picked = slice(start, start + int(call.constant("length")))
    else:
        picked = slice(call.constant("start"), call.constant("end"), call.constant("step"))
    chosen = range(labels.shape[dim])[picked]
    if len(chosen) * 2 == labels.shape[dim] and chosen.step == 1 and chosen.start in (0, len(chosen)):
        call.space.unite(*np.split(labels, 2, axis=dim))
    return Channels(_pick(labels, dim, picked))


def split(call: Call) -> Value:
    """Consecutive parts; where they are of equal size, computed from a width, the parts lose channels together."""
    labels = call.labels("self")
    sizes = [shape[int(call.constant("dim"))] for shape in call.out_shapes()]
    if labels is None:
        return [None] * len(sizes)
    dim = int(call.constant("dim")) % labels.ndim
    stops = np.cumsum(sizes).tolist()
    parts = [_pick(labels, dim, slice(stop - size, stop)) for size, stop in zip(sizes, stops, strict=True)]
    if labels.shape[dim] > 1 and len(set(sizes)) == 1:
        for part in parts[1:]:
            call.space.unite(parts[0], part)
    return [Channels(part) for part in parts]


def unbind(call: Call) -> Value:
    """Every index along a dimension by itself."""
    labels = call.labels("self")
    count = len(call.out_shapes())
    if labels is None:
        return [None] * count
    dim = int(call.constant("dim")) % labels.ndim
    return [Channels(_one(labels, dim, index)) for index in range(count)]


def gated_half(call: Call) -> Value:
    """GLU: the first half times the sigmoid of the second."""
    labels = call.labels("self")
    if labels is None:
        return None
    dim = int(call.constant("dim")) % labels.ndim
    if labels.shape[dim] == 1:
        return Channels(labels)
    first, second = np.split(labels, 2, axis=dim)
    call.space.unite(first, second)
    return Channels(first)


def index(call: Call) -> Value:
    """Tensors of indices along dimensions without labels, as in tables of relative positions."""
    labels, indices = call.labels("self"), call.constant("indices")
    if labels is None:
        return None
    shapes = call.shapes("indices")
    picked: list[slice | Labels] = []
    for dim in range(labels.ndim):
        item = indices[dim] if dim < len(indices) else None
        if item is not None and (labels.shape[dim] > 1 or call.is_mask(item)):
            return call.unknown()
        picked.append(slice(None) if item is None else np.zeros((1,) * len(shapes[dim]), dtype=np.int64))
    return Channels(labels[tuple(picked)])


def index_select(call: Call) -> Value:
    """Indices along a dimension without labels."""
    labels = call.labels("self")
    if labels is None:
        return None
    return call.unknown() if labels.shape[int(call.constant("dim"))] > 1 else Channels(labels)


def embedding(call: Call) -> Value:
    """Rows of a table for each index."""
    labels = call.labels("weight")
    if labels is None or labels.shape[0] > 1:
        return call.unknown()
    return Channels(labels.reshape(*(1,) * (len(call.out_shape()) - 1), -1))


def flip(call: Call) -> Value:
    """The order of indices is reversed."""
    labels = call.labels("self")
    return None if labels is None else Channels(np.flip(labels, call.constant("dims")))


def roll(call: Call) -> Value:
    """Indices are shifted around."""
    labels, dims = call.labels("self"), call.constant("dims")
    if labels is None:
        return None
    return Channels(np.roll(labels, call.constant("shifts"), dims)) if dims else call.unknown()


def _one(labels: Labels, dim: int, index: int) -> Labels:
    return np.asarray(labels.take(index if labels.shape[dim] > 1 else 0, axis=dim))


def _pick(labels: Labels, dim: int, picked: slice) -> Labels:
    if labels.shape[dim] == 1:
        return labels
    parts: Sequence[slice] = [picked if axis == dim else slice(None) for axis in range(labels.ndim)]
    return labels[tuple(parts)]
