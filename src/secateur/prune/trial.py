"""Tracing with a trial: what cannot be removed exactly is pinned before anything is planned."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateur.graph.records import ChannelGraph, ChannelGroup, GroupId, Pin
from secateur.graph.trace import trace_channels
from secateur.prune.proof import Trial
from secateur.prune.surgery import cut_


@torch.inference_mode(False)
def trace(model: nn.Module, example: Tensor | Sequence[Tensor]) -> ChannelGraph:
    """Find which channels of ``model`` stand and fall together, and why others must stay.

    Every group is tried: some of its units are removed from a copy with random weights. A group for which that is
    not exact, such as one whose width hides in a Python object, is pinned with the reason "proof failed: ...".

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
    wide = [group for group in graph.groups if group.width > 1]
    failing: dict[GroupId, str] = {}
    trial = Trial(model, graph, cut_)
    for together in (wide, wide[::2], wide[1::2]):  # two widths may only fit while they shrink alike
        while found := _failing(trial, [group for group in together if group.id not in failing]):
            failing |= found
    pins = tuple(Pin(g.id, f"proof failed: {failing[g.id]}", g.width) for g in graph.groups if g.id in failing)
    groups = tuple(group for group in graph.groups if group.id not in failing)
    return replace(graph, groups=groups, pinned=(*graph.pinned, *pins), seconds=time.perf_counter() - started)


def _failing(trial: Trial, groups: Sequence[ChannelGroup]) -> dict[GroupId, str]:
    """Groups that break when some of their units leave, with the reason.

    Where the smaller network stops in a module, the groups that this module holds are suspected first; the rest
    is found by bisection.
    """
    wrong = trial.disagreement({group.id: _tried(group.width) for group in groups}) if groups else None
    if wrong is None:
        return {}
    if len(groups) == 1:
        return {groups[0].id: wrong.text}
    suspects = [] if wrong.module is None else [group for group in groups if _holds(wrong.module, group)]
    if 0 < len(suspects) < len(groups) and (found := _failing(trial, suspects)):
        return found
    middle = len(groups) // 2
    apart = {**_failing(trial, groups[:middle]), **_failing(trial, groups[middle:])}
    return apart or {group.id: wrong.text for group in groups}  # where each half passes, they break only together


def _tried(width: int) -> tuple[int, ...]:
    """What stays: every other unit of the first half is gone.

    Both halves and both parities then lose different numbers, so that a part of a fixed or computed size, which happens
    to fit when all parts lose equally, does not.
    """
    return tuple(unit for unit in range(width) if unit % 2 or unit >= width / 2)


def _holds(module: str, group: ChannelGroup) -> bool:
    """Whether a tensor of ``group`` belongs to a module, to what it contains, or to its neighbours if it has none."""
    owner = f"{module}." if module else ""
    if not any(piece.tensor.startswith(owner) for piece in group.slices):
        owner = owner.removesuffix(".").rpartition(".")[0]
    return any(piece.tensor.startswith(owner) for piece in group.slices)
