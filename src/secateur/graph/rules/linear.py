"""Linear layers act on the last dimension: their weight (C_out, C_in) reads along 1 and writes along 0."""

from math import prod

from secateur.graph.labels import Channels, ParameterValue, Value
from secateur.graph.records import Role
from secateur.graph.rules.contraction import contract
from secateur.graph.rules.convolution import with_bias
from secateur.graph.walk import Call


def linear(call: Call) -> Value:
    """A linear layer on features that are the channels, or on positions, each channel by itself."""
    weight, incoming = call.value("weight"), call.labels("input")
    if not isinstance(weight, ParameterValue):
        operands = [(call.value(name), call.shape(name)) for name in ("input", "weight")]
        return contract(call, ["...i", "oi"], "...o", operands)
    dim = len(call.shape("input")) - 1
    call.multiplies(weight, prod(call.shape("input")[:-1]))
    read, written = call.slot(weight, 1, Role.READ), call.slot(weight, 0, Role.WRITE)
    if incoming is not None and incoming.size > 1 and incoming.shape[dim] == 1:
        for labels in (read, written):
            call.space.pin(labels, call.module, "linear mixes positions, not channels")
        with_bias(call, written, dim)
        return Channels(incoming)
    call.space.unite(call.line("input", dim), read)
    return with_bias(call, written, dim)
