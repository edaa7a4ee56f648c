"""Convolutions: the weight's input dimension reads, its output dimension writes.

Weights are (C_out, C_in / groups, *kernel); transposed ones (C_in, C_out / groups, *kernel).
"""

from math import prod

from secateur.graph.labels import Channels, Labels, ParameterValue, Value
from secateur.graph.records import Role
from secateur.graph.walk import Call


def convolution(call: Call) -> Value:
    """Plain, grouped and depthwise convolution."""
    weight = call.value("weight")
    if not isinstance(weight, ParameterValue):
        return call.unknown()
    channel_dim = len(call.shape("input")) - (len(weight.shape) - 1)
    groups = int(call.constant("groups"))
    call.multiplies(weight, _positions(call.out_shape(), channel_dim))
    incoming = call.channels("input", channel_dim)
    written = call.slot(weight, 0, Role.WRITE)
    if groups == 1:
        call.space.unite(incoming, call.slot(weight, 1, Role.READ))
    elif weight.shape[1] == 1:  # depthwise: output g * r + k belongs to input g
        call.space.unite(incoming.repeat(len(written) // groups), written)
    else:
        _tie_groups(call, incoming, call.slot(weight, 1, Role.READ), groups)
        _tie_groups(call, written, written[: len(written) // groups], groups)
    return with_bias(call, written, channel_dim)


def transposed_convolution(call: Call) -> Value:
    """Transposed convolution; grouped ones keep their channels."""
    weight = call.value("weight")
    if not isinstance(weight, ParameterValue):
        return call.unknown()
    channel_dim = len(call.shape("input")) - (len(weight.shape) - 1)
    call.multiplies(weight, _positions(call.shape("input"), channel_dim))
    if int(call.constant("groups")) != 1:
        return call.unknown()
    call.space.unite(call.channels("input", channel_dim), call.slot(weight, 0, Role.READ))
    return with_bias(call, call.slot(weight, 1, Role.WRITE), channel_dim)


def with_bias(call: Call, written: Labels, channel_dim: int) -> Value:
    """The result of a layer that writes ``written``; its bias is tied to them."""
    bias = call.value("bias")
    if isinstance(bias, ParameterValue):
        call.space.unite(written, call.slot(bias, 0, Role.TIED))
    elif "bias" in call:
        call.space.pin(written, call.module, "the bias is computed, not a parameter")
    return Channels(channel_dim, written)


def _tie_groups(call: Call, labels: Labels, first_group: Labels, groups: int) -> None:
    """Index k of every convolution group stands and falls with index k of the first."""
    for block in labels.reshape(groups, -1):
        call.space.unite(block, first_group)


def _positions(shape: tuple[int, ...], channel_dim: int) -> int:
    return prod(shape[:channel_dim]) * prod(shape[channel_dim + 1 :])
