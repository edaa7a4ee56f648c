"""Operators that leave a tensor as it is or make one from nothing, and the one activation that has weights."""

import numpy as np

from secateur.graph.labels import Channels, ParameterValue, Value, along
from secateur.graph.records import Role
from secateur.graph.walk import Call


def renamed(call: Call) -> Value:
    """The same tensor by another name, a parameter still a parameter."""
    return call.value("self")


def no_channels(call: Call) -> Value:
    """A tensor made from nothing but shapes, such as random numbers; or nothing at all, such as an assertion."""
    return None


def alike(call: Call) -> Value:
    """A tensor made in the shape of another one, such as zeros, is as wide as that."""
    value = call.value("self")
    return value if isinstance(value, Channels) else None


def prelu(call: Call) -> Value:
    """PReLU with one slope for all channels, or one for each."""
    slope = call.value("weight")
    if not isinstance(slope, ParameterValue):
        return call.unknown()
    if slope.shape in ((), (1,)):
        call.touch(slope)
        return call.value("self")
    incoming = call.line("self", 1)
    call.space.unite(incoming, call.slot(slope, 0, Role.TIED))
    return Channels(along(np.asarray(incoming), 1, len(call.out_shape())))
