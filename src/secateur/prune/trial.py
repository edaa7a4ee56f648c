"""Tracing with a trial: what cannot be removed exactly is pinned before anything is planned."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateur.graph.records import ChannelGraph, ChannelGroup, Pin
from secateur.graph.trace import trace_channels
from secateur.prune.proof import prove
from secateur.prune.surgery import cut_


@torch.inference_mode(False)
def trace(model: nn.Module, example: Tensor | Sequence[Tensor]) -> ChannelGraph:
    """Find which channels of ``model`` stand and fall together, and why others must stay.

    Every group is tried: half of its units are removed from a copy with random weights. A group for which that is
    not exact, such as one whose width hides in a Python object, is pinned with the reason "proof failed".

    Args:
        model: any network; untouched.
        example: one input ``(N, C, *space)`` or several, of the size for which MACs are to be counted.

    Returns:
        The graph: ``graph.groups``, ``graph.pinned``; ``print(graph)`` shows a table.

    Raises:
        GraphError: the network cannot be traced.
    """
    started = time.perf_counter()
    graph = trace_channels(model, example)
    failing: list[ChannelGroup] = []
    trying = [group for group in graph.groups if group.width > 1]
    while more := _failing(model, graph, trying):
        failing += more
        trying = [group for group in trying if group not in more]
    pins = tuple(Pin(group.id, "proof failed", group.width) for group in failing)
    groups = tuple(group for group in graph.groups if group not in failing)
    return replace(graph, groups=groups, pinned=(*graph.pinned, *pins), seconds=time.perf_counter() - started)


def _failing(model: nn.Module, graph: ChannelGraph, groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """The groups that break when half of each leaves, found by bisection."""
    kept = {group.id: tuple(range(0, group.width, 2)) for group in groups}
    if not groups or prove(model, model, graph, kept, cut_, real_weights=False).passed:
        return []
    if len(groups) == 1:
        return groups
    middle = len(groups) // 2
    apart = _failing(model, graph, groups[:middle]) + _failing(model, graph, groups[middle:])
    return apart or groups  # where each half passes, they break only together
