"""Concatenation and stacking: labels are strung together, or tied index by index."""

import numpy as np

from secateur.graph.labels import Channels, Labels, Value, along
from secateur.graph.reshaping import constant_dims_dropped
from secateur.graph.walk import Call


def concatenation(call: Call) -> Value:
    """Along labelled dimensions it strings labels together; along any other it ties them."""
    values, shapes = call.values("tensors"), call.shapes("tensors")
    rank = len(call.out_shape())
    dim = int(call.constant("dim")) % rank
    parts = [call.labels_of(value) for value in values if len(call.out_shape()) == rank]
    labelled = [part for part in parts if part is not None]
    if not labelled:
        return None
    sizes = [shape[dim] for shape in shapes if len(shape) == rank]
    across = tuple(max(part.shape[d] for part in labelled) if d != dim else 1 for d in range(rank))
    strung = any(part.shape[dim] > 1 for part in labelled) or all(size == 1 for size in across)
    if strung and all(size == 1 for size in across):
        lines = [_line(call, part, size) for part, size in zip(parts, sizes, strict=True)]
        return Channels(along(np.concatenate(lines), dim, rank))
    if any(part is None or any(part.shape[d] != across[d] for d in range(rank) if d != dim) for part in parts):
        return _mismatched(call, parts, dim)
    if strung:
        written = [
            np.broadcast_to(part, [size if d == dim else across[d] for d in range(rank)])
            for part, size in zip(labelled, sizes, strict=True)
        ]
        return Channels(constant_dims_dropped(np.concatenate(written, axis=dim)))
    for part in labelled[1:]:
        call.space.unite(labelled[0], part)
    return Channels(labelled[0])


def stacking(call: Call) -> Value:
    """Stacked tensors are tied index by index; the new dimension has no labels."""
    values = [call.labels_of(value) for value in call.values("tensors")]
    dim = int(call.constant("dim")) % len(call.out_shape())
    first = values[0]
    if first is None or any(value is None or value.shape != first.shape for value in values):
        return call.unknown()
    for value in values[1:]:
        if value is not None:
            call.space.unite(first, value)
    return Channels(np.expand_dims(first, dim))


def _line(call: Call, part: Labels | None, size: int) -> Labels:
    if part is None:
        return call.fixed(size, f"{call.operator} joins a tensor whose channels are not tracked")
    return np.broadcast_to(part.reshape(-1), size)


def _mismatched(call: Call, parts: list[Labels | None], dim: int) -> Value:
    """Joined along positions, all parts must carry the same kind of channels."""
    for part in parts:
        call.pin_labels(part, f"{call.operator} joins a tensor whose channels are not tracked")
    return next((Channels(part) for part in parts if part is not None and part.shape[dim] == 1), None)
