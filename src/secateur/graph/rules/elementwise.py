"""Operators that map each element by itself. The list is explicit: nothing is guessed to be elementwise."""

from secateur.graph.labels import Channels, ParameterValue, Value
from secateur.graph.records import Role
from secateur.graph.walk import Call


def elementwise(call: Call) -> Value:
    """Channels pass through; a parameter so treated is no longer one that can be cut."""
    value = call.value("self") if "self" in call else call.value("input")
    return call.unknown() if isinstance(value, ParameterValue) else value


def no_channels(call: Call) -> Value:
    """A tensor made from nothing, such as random numbers of a given shape."""
    return None


def prelu(call: Call) -> Value:
    """PReLU with one slope for all channels, or one for each."""
    slope = call.value("weight")
    if not isinstance(slope, ParameterValue):
        return call.unknown()
    if slope.shape in ((), (1,)):
        return elementwise(call)
    incoming = call.channels("self", 1)
    call.space.unite(incoming, call.slot(slope, 0, Role.TIED))
    return Channels(1, incoming)
