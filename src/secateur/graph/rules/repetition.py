"""Repetition: copies of a channel have its label."""

import numpy as np

from secateur.graph.labels import Channels, Value
from secateur.graph.walk import Call


def expand(call: Call) -> Value:
    """Dimensions of size 1 are broadcast, new ones come first."""
    labels, rank = call.labels("self"), len(call.out_shape())
    return None if labels is None else Channels(labels.reshape(*(1,) * (rank - labels.ndim), *labels.shape))


def broadcast(call: Call) -> Value:
    """Several tensors, each expanded to the shape of all, as in losses; they are not tied yet."""
    rank = len(call.out_shapes()[0])
    found = [call.labels_of(value) for value in call.values("tensors")]
    return [None if x is None else Channels(x.reshape(*(1,) * (rank - x.ndim), *x.shape)) for x in found]


def tile(call: Call) -> Value:
    """The whole tensor side by side, ``repeats`` times along each dimension."""
    labels = call.labels("self")
    if labels is None:
        return None
    given = [int(times) for times in call.constant("repeats" if "repeats" in call else "dims")]
    rank = len(call.out_shape())
    repeats = [*[1] * (rank - len(given)), *given]
    labels = labels.reshape(*(1,) * (rank - labels.ndim), *labels.shape)
    return Channels(np.tile(labels, [t if s > 1 else 1 for t, s in zip(repeats, labels.shape, strict=True)]))


def repeat_interleave(call: Call) -> Value:
    """Each index ``repeats`` times in a row."""
    labels, dim = call.labels("self"), call.constant("dim")
    if labels is None or dim is None or not isinstance(call.constant("repeats"), int):
        return call.unknown()
    return Channels(labels.repeat(call.constant("repeats"), axis=dim) if labels.shape[dim] > 1 else labels)
