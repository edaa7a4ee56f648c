"""Concatenation and stacking: labels are strung together, or tied index by index."""

import numpy as np

from secateur.graph.labels import Channels, Value
from secateur.graph.walk import Call


def concatenation(call: Call) -> Value:
    """Along the channels it strings labels together; along any other dimension it ties them."""
    values, shapes = call.values("tensors"), call.shapes("tensors")
    dim = int(call.constant("dim")) % len(call.out_shape())
    labelled = [value for value in values if isinstance(value, Channels)]
    if not labelled:
        return None
    channel_dim = labelled[0].dim
    if any(value.dim != channel_dim for value in labelled):
        return call.unknown()
    parts = [
        value.labels
        if isinstance(value, Channels)
        else call.fixed(shape[channel_dim], f"{call.operator} joins a tensor whose channels are not tracked")
        for value, shape in zip(values, shapes, strict=True)
    ]
    if dim == channel_dim:
        return Channels(dim, np.concatenate(parts))
    for part in parts[1:]:
        call.space.unite(parts[0], part)
    return Channels(channel_dim, parts[0])


def stacking(call: Call) -> Value:
    """Stacked tensors are tied channel by channel; a new dimension before the channels moves them."""
    values = call.values("tensors")
    dim = int(call.constant("dim")) % len(call.out_shape())
    first = values[0]
    if not isinstance(first, Channels):
        return call.unknown()
    for value in values[1:]:
        if not isinstance(value, Channels) or value.dim != first.dim:
            return call.unknown()
        call.space.unite(first.labels, value.labels)
    return Channels(first.dim + (dim <= first.dim), first.labels)
