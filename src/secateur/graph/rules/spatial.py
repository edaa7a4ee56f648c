"""Pooling, resizing and padding: they move values in space and leave each channel by itself."""

from secateur.graph.labels import Channels, Value
from secateur.graph.walk import Call


def spatial(call: Call) -> Value:
    """Pooling and resizing over the last dimensions, after the channels."""
    name = "self" if "self" in call else "input"
    value = call.value(name)
    space = int(call.operator[-2])  # max_pool2d moves values in the last two dimensions
    if value is None or (isinstance(value, Channels) and value.dim < len(call.shape(name)) - space):
        return value
    return call.unknown()


def padding(call: Call) -> Value:
    """Padding of dimensions after the channels; a padded channel dimension is not tracked."""
    value = call.value("self")
    if not isinstance(value, Channels):
        return None
    first_padded = len(call.shape("self")) - len(call.constant("pad")) // 2
    return value if first_padded > value.dim else call.unknown()
