"""Views: the same elements under another shape or in another order of dimensions."""

from math import prod

import numpy as np

from secateur.graph.labels import Channels, Value
from secateur.graph.reshaping import MAX_EXPANDED, expanded_size, joins, reshaped, segments
from secateur.graph.walk import Call


def reshape(call: Call) -> Value:
    """Any change of shape that keeps the order of elements: view, flatten, unflatten, squeeze, unsqueeze.

    A labelled dimension that is split, such as channels into heads, is remembered. One that joins positions leaves as
    a whole where other labels stay (pixel shuffle written by hand); else every position carries its channel's label, up
    to a bound beyond which it is pinned.
    """
    labels, before, after = call.labels("self"), call.shape("self"), call.out_shape()
    if labels is None:
        return None
    for segment in segments(before, after):
        joined = joins(labels, before, segment)
        others = prod(labels.shape) > prod(labels.shape[dim] for dim in segment.before)
        if joined and others:
            mixed = call.mix(labels, joined)
            labels = labels if mixed is None else mixed
        elif joined and expanded_size(labels, before, segment) > MAX_EXPANDED:
            call.pin_labels(labels, f"{call.operator} flattens positions and channels together")
            return None
    result = reshaped(labels, before, after)
    for segment in segments(before, after):
        one_before = sum(labels.shape[dim] > 1 for dim in segment.before) == 1
        after_it = [result.shape[dim] for dim in segment.after]
        if one_before and sum(size > 1 for size in after_it) > 1 and prod(after_it) == result.size:
            call.splits(result.reshape(after_it))
    return Channels(result)


def permute(call: Call) -> Value:
    """The given order of dimensions."""
    labels = call.labels("self")
    return None if labels is None else Channels(labels.transpose([int(dim) for dim in call.constant("dims")]))


def transpose(call: Call) -> Value:
    """Two dimensions change places; ``t`` swaps the two that there are."""
    labels = call.labels("self")
    if labels is None or labels.ndim < 2:
        return None if labels is None else Channels(labels)
    names = ("axis0", "axis1") if "axis0" in call else ("dim0", "dim1")
    dims = [int(call.constant(name)) for name in names] if names[0] in call else [0, 1]
    return Channels(labels.swapaxes(*dims))


def move_dimensions(call: Call) -> Value:
    """Dimensions move to new places, the others keep their order."""
    labels = call.labels("self")
    return (
        None if labels is None else Channels(np.moveaxis(labels, call.constant("source"), call.constant("destination")))
    )
