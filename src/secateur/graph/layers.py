"""What the calls of a network cost, in terms of the tensors that shrink."""

from collections.abc import Sequence

import numpy as np

from secateur.graph.labels import LabelSpace
from secateur.graph.records import Layer, Role
from secateur.graph.walk import Product


def count_layers(space: LabelSpace, calls: Sequence[Layer | Product], batch: int) -> tuple[Layer, ...]:
    """The multiplying calls per sample.

    A product of activations shrinks with its labels, so it is counted by a dimension of a parameter that holds the
    same units and a whole part of the product for each index; without one its cost is fixed.
    """
    places: dict[bytes, list[tuple[str, int, int]]] = {}
    for tensor, dim, role, labels in space.slots():
        if role is not Role.WIDTH:
            places.setdefault(np.unique(labels).tobytes(), []).append((tensor, dim, len(labels)))
    layers = []
    for call in calls:
        if isinstance(call, Layer):
            layers.append(Layer(call.weight, call.positions // batch))
            continue
        macs = call.macs // batch
        found = [] if call.labels is None else places.get(np.unique(space.representatives(call.labels)).tobytes(), [])
        whole = next(((tensor, dim, size) for tensor, dim, size in found if macs % size == 0), None)
        layers.append(Layer(whole[0], macs // whole[2], (whole[1],)) if whole else Layer("", macs, ()))
    return tuple(layers)
