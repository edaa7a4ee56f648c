"""Operators that make one number of many, or weigh them against each other: over channels they mix them."""

from secateur.graph.labels import Channels, Labels, Value
from secateur.graph.rules.arithmetic import pointwise
from secateur.graph.walk import Call


def reduction(call: Call) -> Value:
    """Mean, sum, maximum, variance, norm and the like; a maximum over a dimension also returns its indices."""
    if call.has("other"):  # the larger of two tensors
        return pointwise(call)
    labels = call.labels("self")
    if labels is None:
        return [None, None] if call.out_shapes() else None
    dims = _dims(call, labels)
    mixed = call.mix(labels, dims)
    if mixed is not None and not (call.has("keepdim") and call.constant("keepdim")):
        mixed = mixed.squeeze(tuple(dims)) if len(dims) < labels.ndim else mixed.reshape(())
    value = None if mixed is None else Channels(mixed)
    return [value, value] if call.out_shapes() else value


def weighing(call: Call) -> Value:
    """Softmax, sorting, cumulative sums: the shape stays, and so do the labels of what is mixed."""
    labels = call.labels("self")
    if labels is None:
        return None
    call.mix(labels, _dims(call, labels))
    return [Channels(labels)] * len(call.out_shapes()) or Channels(labels)


def _dims(call: Call, labels: Labels) -> list[int]:
    dim = call.constant("dim") if call.has("dim") else None
    if dim is None or dim == []:
        return list(range(labels.ndim))
    return sorted({int(d) % labels.ndim for d in (dim if isinstance(dim, list | tuple) else [dim])})
