"""Norms with statistics per channel: their parameters and running statistics follow the channels."""

from secateur.graph.labels import Channels, ParameterValue, Value
from secateur.graph.records import Role
from secateur.graph.walk import Call

_TENSORS = ("weight", "bias", "running_mean", "running_var")


def channel_norm(call: Call) -> Value:
    """Batch and instance normalisation: channel i in, channel i out."""
    incoming = call.channels("input", 1)
    for name in _TENSORS:
        value = call.value(name)
        if isinstance(value, ParameterValue):
            call.space.unite(incoming, call.slot(value, 0, Role.TIED))
        elif name in call:
            call.space.pin(incoming, call.module, f"the norm's {name} is computed, not a parameter")
    if not any(name in call for name in _TENSORS):
        width = call.space.slot(f"{call.module}.num_features", 0, Role.WIDTH, len(incoming))
        if len(width) == len(incoming):  # a norm without parameters may serve several widths
            call.space.unite(incoming, width)
    return Channels(1, incoming)
