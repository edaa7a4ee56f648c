"""Convolutions: the weight's input dimension reads, its output dimension writes.

Weights are (C_out, C_in / groups, *kernel); transposed ones (C_in, C_out / groups, *kernel).
"""

from math import prod

import numpy as np

from secateur.graph.labels import Channels, Labels, ParameterValue, Value, along
from secateur.graph.records import Role
from secateur.graph.walk import Call


def convolution(call: Call) -> Value:
    """Plain, grouped and depthwise convolution."""
    weight, channel_dim = call.value("weight"), _channel_dim(call)
    positions = _positions(call.out_shape(), channel_dim)
    if not isinstance(weight, ParameterValue):
        call.multiplies_activations(positions * prod(call.shape("weight")))
        return call.unknown()
    groups = int(call.constant("groups"))
    call.multiplies(weight, positions)
    incoming = call.line("input", channel_dim)
    written = call.slot(weight, 0, Role.WRITE)
    if groups == 1:
        call.space.unite(incoming, call.slot(weight, 1, Role.READ))
    elif weight.shape[1] == 1:  # depthwise: output g * r + k belongs to input g
        call.space.unite(incoming.repeat(len(written) // groups), written)
    else:
        _tie_groups(call, incoming, call.slot(weight, 1, Role.READ), groups)
        call.space.stands_for(weight.name, 1, groups)
        _tie_groups(call, written, written[: len(written) // groups], groups)
    return with_bias(call, written, channel_dim)


def transposed_convolution(call: Call) -> Value:
    """Transposed convolution: group g of the inputs makes group g of the outputs, index k of each has slice k."""
    weight, channel_dim = call.value("weight"), _channel_dim(call)
    positions = _positions(call.shape("input"), channel_dim)
    if not isinstance(weight, ParameterValue):
        call.multiplies_activations(positions * prod(call.shape("weight")))
        return call.unknown()
    groups = int(call.constant("groups"))
    call.multiplies(weight, positions)
    incoming = call.line("input", channel_dim)
    if groups == weight.shape[0] > 1:  # depthwise: output i * r + k belongs to input i
        call.space.unite(incoming, call.slot(weight, 0, Role.WRITE))
        call.space.stands_for(weight.name, 0, weight.shape[1])
        return with_bias(call, incoming.repeat(weight.shape[1]), channel_dim)
    call.space.unite(incoming, call.slot(weight, 0, Role.READ))
    if groups > 1:
        _tie_groups(call, incoming, incoming[: len(incoming) // groups], groups)
    call.space.stands_for(weight.name, 1, groups)
    return with_bias(call, np.tile(call.slot(weight, 1, Role.WRITE), groups), channel_dim)


def with_bias(call: Call, written: Labels, channel_dim: int) -> Value:
    """The result of a layer that writes ``written``; its bias is tied to them."""
    bias = call.value("bias")
    if isinstance(bias, ParameterValue):
        call.space.unite(written, call.slot(bias, 0, Role.TIED))
    elif "bias" in call:
        call.space.pin(written, call.module, "the bias is computed, not a parameter")
    return Channels(along(written, channel_dim, len(call.out_shape())))


def _channel_dim(call: Call) -> int:
    return len(call.shape("input")) - (len(call.shape("weight")) - 1)


def _tie_groups(call: Call, labels: Labels, first_group: Labels, groups: int) -> None:
    """Index k of every convolution group stands and falls with index k of the first."""
    for block in labels.reshape(groups, -1):
        call.space.unite(block, first_group)


def _positions(shape: tuple[int, ...], channel_dim: int) -> int:
    return prod(shape[:channel_dim]) * prod(shape[channel_dim + 1 :])
