"""Linear layers act on the last dimension: their weight (C_out, C_in) reads along 1 and writes along 0."""

from math import prod

from secateur.graph.labels import ParameterValue, Value
from secateur.graph.records import Role
from secateur.graph.rules.convolution import with_bias
from secateur.graph.walk import Call


def linear(call: Call) -> Value:
    """A linear layer on features that are the channels; where they are not, all that it reads is pinned."""
    weight = call.value("weight")
    if not isinstance(weight, ParameterValue):
        return call.unknown()
    dim = len(call.shape("input")) - 1
    call.multiplies(weight, prod(call.shape("input")[:-1]))
    call.space.unite(call.channels("input", dim), call.slot(weight, 1, Role.READ))
    return with_bias(call, call.slot(weight, 0, Role.WRITE), dim)
