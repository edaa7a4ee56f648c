"""Tracing with a trial: what cannot be removed exactly is pinned before anything is planned."""

import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from secateur.graph.group_norm import GroupNormMode
from secateur.graph.memory import release_freed_memory
from secateur.graph.patch import random_inputs
from secateur.graph.records import ChannelGraph, ChannelGroup, GroupId, Kept, Pin
from secateur.graph.trace import trace_channels
from secateur.prune.comparison import BREAKS, Outputs, compare, does_not_run, masked_outputs, outputs
from secateur.prune.surgery import cut_
from secateur.prune.twins import wide_random_twin

_NUMBER = re.compile(r"\d+")
_NARROW = 8  # a group of fewer units cannot lose clearly different shares


@torch.inference_mode(False)
def trace(
    model: nn.Module, example: Tensor | Sequence[Tensor], *, group_norm: GroupNormMode = GroupNormMode.WHOLE
) -> ChannelGraph:
    """Find which channels of ``model`` stand and fall together, and why others must stay.

    Every group is tried: some of its units are removed from a copy with random weights. A group for which that is
    not exact, such as one whose width hides in a Python object, is pinned with the reason "proof failed: ...".

    Args:
        model: any network; untouched.
        example: one input ``(N, C, *space)`` or several, of the size for which MACs are to be counted.
        group_norm: what leaves of a GroupNorm at a time. `GroupNormMode.WHOLE` norm groups leave exactly.
            `GroupNormMode.EVEN` takes one channel of each, which is finer but approximate: what stays is normalised by
            statistics of fewer channels. Such groups are not ``exact``, and say why; nothing else is approximate.

    Returns:
        The graph: ``graph.groups``, ``graph.pinned``; ``print(graph)`` shows a table.

    Raises:
        GraphError: the network cannot be traced.
    """
    started = time.perf_counter()
    graph = trace_channels(model, example, group_norm=group_norm)
    failing = _find_failing(model, graph)
    pins = tuple(Pin(g.id, f"proof failed: {failing[g.id]}", g.width) for g in graph.groups if g.id in failing)
    groups = tuple(group for group in graph.groups if group.id not in failing)
    return replace(graph, groups=groups, pinned=(*graph.pinned, *pins), seconds=time.perf_counter() - started)


def _find_failing(model: nn.Module, graph: ChannelGraph) -> dict[GroupId, str]:
    """Groups that cannot be removed exactly, with what went wrong.

    All groups are tried at once. Two widths may only fit while they shrink alike, so neighbours lose different shares;
    where groups are too narrow for that, every other group is also tried while the others stay whole. Once a group
    has failed, those of the same name in other blocks are tried one by one, as long as they fail too.
    """
    wide = [group for group in graph.groups if group.width > 1]
    trial = Trial(model, graph, {group.id: _tried(group.width, number) for number, group in enumerate(wide)})
    narrow = any(group.width < _NARROW for group in wide)
    failing: dict[GroupId, str] = {}
    for together in (wide, wide[::2], wide[1::2]) if narrow else (wide,):
        while found := _failing(trial, [group for group in together if group.id not in failing]):
            failing |= found
            for group in _alike(found, [group for group in together if group.id not in failing]):
                if not (again := _failing(trial, [group])):
                    break
                failing |= again
        release_freed_memory()
    return failing


@dataclass(frozen=True)
class Disagreement:
    """How masked and removed network differ.

    Attributes:
        text: in words.
        module: in which the smaller one stopped, if it did.
        hopeless: rounding alone makes such a difference in every output, whatever is removed.
    """

    text: str
    module: str | None = None
    hopeless: bool = False


@final
@dataclass(frozen=True)
class Trial:
    """The part of a proof that finds wrong groups, for many removals from one network with random weights.

    Attributes:
        model: untouched.
        graph: its groups.
        kept: for each group, what stays of it when it is tried.
    """

    model: nn.Module
    graph: ChannelGraph
    kept: Kept

    def disagreement(self, groups: Sequence[ChannelGroup]) -> Disagreement | None:
        """What is wrong when units of ``groups`` leave; None where both networks agree in both modes.

        The network with random weights is made anew each time, and cut where it is: one is held at a time. The smaller
        one runs first, because wrong widths mostly stop it, and soon.
        """
        kept = {group.id: self.kept[group.id] for group in groups}
        inputs = random_inputs(self.graph.patch, like=self.model, seed=1, dtype=torch.float64)
        small = wide_random_twin(self.model)
        try:
            cut_(small, self.graph, kept)
            removed = outputs(small, inputs)
        except BREAKS as error:
            return Disagreement(does_not_run(error), _where(error, small))
        del small

        def masked(given: Sequence[Tensor]) -> Outputs:
            return masked_outputs(wide_random_twin(self.model), self.graph, kept, given)

        try:
            found = compare(masked(inputs), removed, inputs, masked)
        except BREAKS as error:
            return Disagreement(does_not_run(error))
        for mode, outputs_apart in found.items():
            if outputs_apart is None:
                return Disagreement(f"{mode}: the outputs have other shapes")
            wrong = sorted((each for each in outputs_apart if not each.close), key=lambda each: not each.is_chaos)
            if wrong:
                return Disagreement(f"{mode}: {wrong[0]}", hopeless=all(each.is_chaos for each in outputs_apart))
        return None


def _where(error: Exception, model: nn.Module) -> str | None:
    """The innermost module whose own code the error passed through."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = None, error.__traceback__
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


def _failing(trial: Trial, groups: Sequence[ChannelGroup]) -> dict[GroupId, str]:
    """Groups that break when some of their units leave, with the reason.

    Where the smaller network stops in a module, the groups that this module holds are suspected first; the rest
    is found by bisection.
    """
    wrong = trial.disagreement(groups) if groups else None
    if wrong is None:
        return {}
    if len(groups) == 1:
        return {groups[0].id: wrong.text}
    if wrong.hopeless:
        return {group.id: wrong.text for group in groups}
    suspects = [] if wrong.module is None else _held(wrong.module, groups)
    if 0 < len(suspects) < len(groups) and (found := _failing(trial, suspects)):
        return found
    middle = len(groups) // 2
    apart = {**_failing(trial, groups[:middle]), **_failing(trial, groups[middle:])}
    return apart or {group.id: wrong.text for group in groups}  # where each half passes, they break only together


def _alike(found: Collection[GroupId], groups: Sequence[ChannelGroup]) -> Iterator[ChannelGroup]:
    """Those of ``groups`` whose names are, but for numbers, the names of ``found``."""
    names = {_NUMBER.sub("#", group) for group in found}
    return (group for group in groups if _NUMBER.sub("#", group.id) in names)


def _tried(width: int, number: int) -> tuple[int, ...]:
    """What stays of the group of that number: of the first half, every other unit is gone, or three of four.

    Both halves and both parities lose different numbers, so that a part of a fixed or computed size, which happens
    to fit when all parts lose equally, does not. Groups of even and odd number lose different shares.
    """
    period = 4 if number % 2 and width >= _NARROW else 2
    return tuple(unit for unit in range(width) if unit % period == period - 1 or unit >= width / 2)


def _held(module: str, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Those with a tensor of a module or of what it contains; of its neighbours where none has one."""
    path = module.split(".") if module else []
    for owner in (path, path[:-1]):
        prefix = "".join(f"{part}." for part in owner)
        if held := [group for group in groups if any(piece.tensor.startswith(prefix) for piece in group.slices)]:
            return held
    return []
