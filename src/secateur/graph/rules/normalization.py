"""Norms: their parameters and running statistics follow the channels, as far as the statistics are per channel."""

from collections.abc import Iterator

import numpy as np

from secateur.graph.labels import Channels, Labels, ParameterValue, Value, along
from secateur.graph.records import Role
from secateur.graph.walk import Call

_TENSORS = ("weight", "bias", "running_mean", "running_var")


def channel_norm(call: Call) -> Value:
    """Batch and instance normalisation: channel i in, channel i out."""
    incoming = call.line("input", 1)
    if not _tie(call, incoming):
        call.counts("num_features", incoming)
    return Channels(along(np.asarray(incoming), 1, len(call.out_shape())))


def group_norm(call: Call) -> Value:
    """Whole norm groups leave, and the module then counts fewer: the statistics of the others stay as they are."""
    incoming = call.line("input", 1)
    groups = incoming.reshape(int(call.constant("num_groups")), -1)
    call.space.unite(np.broadcast_to(groups[:, :1], groups.shape), groups)
    if not _tie(call, incoming):
        call.counts("num_channels", incoming)
    call.counts("num_groups", groups[:, 0])
    return Channels(along(np.asarray(incoming), 1, len(call.out_shape())))


def group_norm_evenly(call: Call) -> Value:
    """One channel of each norm group leaves together; the module counts as many groups, and those that stay change.

    Norm groups of one channel lose nothing by leaving whole. Nor is a norm without a scale taken apart: the proof has
    to compute its statistics over the channels that stay, and tells norms by their scales.
    """
    count, scale = int(call.constant("num_groups")), call.value("weight")
    if call.shape("input")[1] == count or not isinstance(scale, ParameterValue):
        return group_norm(call)
    incoming = call.line("input", 1)
    groups = incoming.reshape(count, -1)
    call.space.unite(np.broadcast_to(groups[:1], groups.shape), groups)
    _tie(call, incoming)
    call.space.approximate(scale.name, "group_norm takes its statistics over the channels that stay")
    return Channels(along(np.asarray(incoming), 1, len(call.out_shape())))


def layer_norm(call: Call) -> Value:
    """Statistics over the last dimensions: what is normalised together stays, or leaves as a whole, such as a head."""
    incoming, rank = call.labels("input"), len(call.out_shape())
    normalised = range(rank - len(call.constant("normalized_shape")), rank)
    for value in _parameters(call):
        dim = len(value.shape) - 1
        reason = "layer_norm takes its statistics over all channels"
        call.space.pin(call.slot(value, dim, Role.TIED), call.module, reason)
    if incoming is None:
        return None
    call.mix(incoming, normalised)
    return Channels(incoming)


def weight_norm(call: Call) -> Value:
    """Weights of unit length per output channel, scaled: outputs can leave, inputs would change the lengths."""
    direction, length = call.value("v"), call.value("g")
    if not (isinstance(direction, ParameterValue) and isinstance(length, ParameterValue)) or call.constant("dim") != 0:
        return call.unknown()
    call.space.unite(call.slot(direction, 0, Role.WRITE), call.slot(length, 0, Role.TIED))
    reason = "weight norm takes the length of a weight over all its inputs"
    call.space.pin(call.slot(direction, 1, Role.READ), call.module, reason)
    return direction


def _tie(call: Call, incoming: Labels) -> bool:
    """Tie every parameter and buffer of a norm to its channels; False where it has none."""
    for value in _parameters(call):
        call.space.unite(incoming, call.slot(value, 0, Role.TIED))
    for name in _TENSORS:
        if name in call and not isinstance(call.value(name), ParameterValue):
            call.space.pin(incoming, call.module, f"the norm's {name} is computed, not a parameter")
    return any(name in call for name in _TENSORS)


def _parameters(call: Call) -> Iterator[ParameterValue]:
    for name in _TENSORS:
        value = call.value(name) if name in call else None
        if isinstance(value, ParameterValue):
            yield value
