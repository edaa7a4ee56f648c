"""Pooling, resizing and padding: they move values in space and leave each channel by itself."""

import re

import numpy as np

from secateur.graph.labels import Channels, Value
from secateur.graph.walk import Call

_DIMENSIONS = re.compile(r"(\d)d")


def spatial(call: Call) -> Value:
    """Pooling and resizing over the last dimensions; with the indices of a maximum where those are returned."""
    name = next(iter(call.tensors()))
    labels, rank = call.labels(name), len(call.shape(name))
    if labels is None:
        return None
    space = int(_DIMENSIONS.findall(call.operator)[-1])  # max_pool2d moves values in the last two dimensions
    mixed = call.mix(labels, range(rank - space, rank))
    value = None if mixed is None else Channels(mixed)
    return [value, value] if call.out_shapes() else value


def grid_sampling(call: Call) -> Value:
    """Values of ``(N, C, *space)`` at given places."""
    labels = call.labels("input")
    if call.value("grid") is not None:
        return call.unknown()
    mixed = None if labels is None else call.mix(labels, [0, *range(2, labels.ndim)])
    return None if mixed is None else Channels(mixed)


def padding(call: Call) -> Value:
    """Padding and cropping; channels padded with a constant are new ones that stay."""
    labels = call.labels("self")
    if labels is None:
        return None
    pad = [int(amount) for amount in call.constant("pad")]
    constant = call.operator == "constant_pad_nd" or call.constant("mode") == "constant"
    for dim, before, after in zip(reversed(range(labels.ndim)), pad[::2], pad[1::2], strict=False):
        if labels.shape[dim] == 1 or before == after == 0:
            continue
        if not constant or labels.size != labels.shape[dim]:
            return call.unknown()
        line = labels.reshape(-1)[max(-before, 0) : labels.size - max(-after, 0)]
        zeros = [call.fixed(max(size, 0), "channels are padded with a constant") for size in (before, after)]
        labels = np.concatenate([zeros[0], line, zeros[1]]).reshape([-1 if d == dim else 1 for d in range(labels.ndim)])
    return Channels(labels)
