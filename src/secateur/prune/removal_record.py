"""What every record of a removal says of the groups."""

from typing import Any

from secateur.cost.macs import graph_macs, graph_params
from secateur.graph.records import ChannelGraph


def removal_record(dense: ChannelGraph, small: ChannelGraph) -> dict[str, Any]:  # JSON values
    """Cost of the network before, its groups with the width that is ``kept`` in the network after, and its pins."""
    kept = {group.id: group.width for group in small.groups}
    return {
        "dense": {"params": graph_params(dense), "macs": graph_macs(dense)},
        "input_shape": list(dense.inputs[0].shape),
        "groups": [{"id": g.id, "width": g.width, "kept": kept[g.id], "exact": g.exact} for g in dense.groups],
        "pinned": [{"module": pin.module, "reason": pin.reason, "channels": pin.channels} for pin in dense.pinned],
    }
