"""What every record of a removal says of the groups."""

from typing import Any

from secateur.cost.macs import graph_macs, graph_params
from secateur.graph.describe import width_record
from secateur.graph.records import ChannelGraph


def removal_record(dense: ChannelGraph, small: ChannelGraph) -> dict[str, Any]:  # JSON values
    """Cost of the network before, its groups with the channels that are ``kept`` in the network after, and its pins."""
    groups = [
        {"id": group.id, **width_record(group), "kept": left.channels, "exact": group.exact}
        for group, left in zip(dense.groups, small.groups, strict=True)
    ]
    return {
        "dense": {"params": graph_params(dense), "macs": graph_macs(dense)},
        "input_shape": list(dense.inputs[0].shape),
        "groups": groups,
        "pinned": [{"module": pin.module, "reason": pin.reason, "channels": pin.channels} for pin in dense.pinned],
    }
