"""From scores to a plan: one global ranking, cut where the budget is met."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.cost.macs import WidthCost
from secateur.errors import BudgetError, EvidenceError
from secateur.graph.records import ChannelGraph, ChannelGroup, GroupId
from secateur.prune.budget import Budget
from secateur.prune.plan import PruningPlan


def allocate(
    graph: ChannelGraph,
    scores: Mapping[GroupId, Tensor],
    budget: Budget,
    *,
    round_to: int = 1,
    min_channels: int = 1,
    min_keep_ratio: float = 0.0,
) -> PruningPlan:
    """Choose the units to remove so that the whole network meets ``budget``.

    How it works: units leave in ascending order of score, over all groups at once, until the cost fits; a group at
    its floor loses no more. Widths are then rounded up to multiples of ``round_to``, which is part of the cost
    that is compared. Last, units go back in, best score first, wherever the budget still has room. Floors and
    multiples count channels, of which a unit may be several: see `ChannelGroup.unit_channels`.

    Args:
        graph: of the network to be pruned.
        scores: per group float ``(C_g,)``, higher = keep, comparable across groups. Groups without scores stay.
        budget: target on the whole network, e.g. ``MacsBudget(keep_ratio=0.5)``.
        round_to: keep a multiple of this many channels in each group, or all of them. Units stay whole: of units of 3
            channels, a multiple of 8 is 8 units.
        min_channels: no group falls below this many channels, or loses any where it has no more. Units stay whole.
        min_keep_ratio: nor below this share of its width, in [0, 1]: a global ranking by itself may empty the deep
            layers of a U-Net, which cost few MACs and see the most context.

    Returns:
        Plan with ascending indices per group. Among equal scores the higher index leaves first.

    Raises:
        BudgetError: even the smallest network allowed costs more; the message names the nearest budget.
        EvidenceError: scores of the wrong length, or not finite.
    """
    if round_to < 1 or min_channels < 1:
        raise BudgetError(f"round_to and min_channels start at 1; got {round_to} and {min_channels}.")
    if not 0 <= min_keep_ratio <= 1:
        raise BudgetError(f"min_keep_ratio is a share of each group's width, from 0 to 1; got {min_keep_ratio}.")
    groups = graph.groups
    _check_scores(groups, scores)
    rounding = _Rounding(groups, Floors(round_to, min_channels, min_keep_ratio))
    costs = WidthCost(graph)

    def cost(counts: Sequence[int]) -> int:
        return budget.cost(costs, rounding.all_removed(counts))

    before = budget.cost(costs, [0] * len(groups))
    allowed = int(budget.keep_ratio * before + 1e-6)
    order = _ranking(groups, scores)
    counts = _cut(order, len(groups), cost, allowed)
    if counts is None:
        nearest = math.ceil(cost(_counts(order, len(groups))) / before * 1e4) / 1e4
        raise BudgetError(
            f"{budget} cannot be reached: with {rounding.floors.words(groups)} the network keeps "
            f"{nearest:.4f} of its {budget.kind}; ask for at least that{rounding.floors.remedy()}."
        )
    removed = _refill(order, counts, rounding, lambda removed: budget.cost(costs, removed), allowed)
    return _plan(groups, scores, removed, costs, str(budget))


@dataclass(frozen=True)
class Floors:
    """Below what no group of channels falls; see `allocate`."""

    round_to: int = 1
    min_channels: int = 1
    min_keep_ratio: float = 0.0

    def kept(self, group: ChannelGroup, wanted: int = 0) -> int:
        """How many units ``group`` really keeps when its ranking would keep ``wanted``: one at least."""
        least = -(-self.min_channels // group.unit_channels)
        step = self.round_to // math.gcd(self.round_to, group.unit_channels)
        kept = max(wanted, least, math.ceil(self.min_keep_ratio * group.width))
        return min(group.width, -(-kept // step) * step)

    def words(self, groups: Sequence[ChannelGroup]) -> str:
        """What every one of ``groups`` keeps."""
        floor = -(-self.min_channels // self.round_to) * self.round_to
        share = f" and {self.min_keep_ratio:.0%} of its width" if self.min_keep_ratio else ""
        largest = max((group.unit_channels for group in groups), default=1)
        units = f" (in units of up to {largest})" if largest > 1 else ""
        return f"at least {floor} channels{share} in every group that has more{units}"

    def remedy(self) -> str:
        """Which of them could be lower, as the command line names them; empty where none could."""
        settings = (
            (self.min_channels > 1, f"--min-channels {self.min_channels}"),
            (self.round_to > 1, f"--round-to {self.round_to}"),
            (self.min_keep_ratio > 0, f"--set pruning.min_keep_ratio={self.min_keep_ratio:g}"),
        )
        given = [words for lower, words in settings if lower]
        return f", or lower {' or '.join(given)}" if given else ""


@dataclass(frozen=True)
class _Rounding:
    """How many units may really leave a group when its ranking says ``count``."""

    groups: Sequence[ChannelGroup]
    floors: Floors

    def removed(self, group: int, count: int) -> int:
        each = self.groups[group]
        return each.width - self.floors.kept(each, each.width - count)

    def all_removed(self, counts: Sequence[int]) -> list[int]:
        """The same for every group."""
        return [self.removed(group, count) for group, count in enumerate(counts)]


def _ranking(groups: Sequence[ChannelGroup], scores: Mapping[GroupId, Tensor]) -> list[int]:
    """The group of each unit, in the order in which units leave."""
    entries = [
        (score, -unit, g)
        for g, group in enumerate(groups)
        if group.id in scores
        for unit, score in enumerate(scores[group.id].double().tolist())
    ]
    return [g for _, _, g in sorted(entries)]


def _counts(order: Sequence[int], number_of_groups: int) -> list[int]:
    counts = [0] * number_of_groups
    for group in order:
        counts[group] += 1
    return counts


def _cut(
    order: Sequence[int], number_of_groups: int, cost: Callable[[Sequence[int]], int], allowed: int
) -> list[int] | None:
    """The shortest prefix of the ranking that meets the budget (cost never rises along it), by bisection."""
    low, high = 0, len(order)
    if cost(_counts(order, number_of_groups)) > allowed:
        return None
    while low < high:
        middle = (low + high) // 2
        if cost(_counts(order[:middle], number_of_groups)) <= allowed:
            high = middle
        else:
            low = middle + 1
    return _counts(order[:low], number_of_groups)


def _refill(
    order: Sequence[int],
    counts: Sequence[int],
    rounding: _Rounding,
    cost: Callable[[Sequence[int]], int],
    allowed: int,
) -> list[int]:
    """How many units leave each group once units are given back, best first, where a whole rounding step still fits."""
    left, removed = list(counts), rounding.all_removed(counts)
    full: set[int] = set()
    for group in reversed(order[: sum(counts)]):
        if group in full or left[group] == 0:
            continue
        now = removed[group]
        step = next((c for c in range(left[group] - 1, -1, -1) if rounding.removed(group, c) < now), 0)
        removed[group] = rounding.removed(group, step)
        if cost(removed) <= allowed:
            left[group] = step
        else:
            removed[group] = now
            full.add(group)
    return removed


def _plan(
    groups: Sequence[ChannelGroup],
    scores: Mapping[GroupId, Tensor],
    removed: Sequence[int],
    costs: WidthCost,
    budget: str,
) -> PruningPlan:
    kept: dict[GroupId, tuple[int, ...]] = {}
    for group, count in zip(groups, removed, strict=True):
        if count:
            leaving = sorted(range(group.width), key=lambda unit: (float(scores[group.id][unit]), -unit))[:count]
            kept[group.id] = tuple(sorted(set(range(group.width)) - set(leaving)))
    none = [0] * len(groups)
    macs, params = costs.macs(removed), costs.params(removed)
    reached = {
        "macs": macs,
        "params": params,
        "macs_keep_ratio": macs / costs.macs(none),
        "params_keep_ratio": params / costs.params(none),
    }
    approximate = frozenset(group.id for group in groups if group.id in kept and not group.exact)
    return PruningPlan(kept, {g.id: g.width for g in groups if g.id in kept}, budget, reached, approximate)


def _check_scores(groups: Sequence[ChannelGroup], scores: Mapping[GroupId, Tensor]) -> None:
    widths = {group.id: group.width for group in groups}
    for group, values in scores.items():
        if group not in widths or tuple(values.shape) != (widths[group],):
            raise EvidenceError(
                f"scores of group {group!r} have shape {tuple(values.shape)}; "
                f"the graph has {widths.get(group, 'no')} units there. Score with this graph."
            )
        if not bool(torch.isfinite(values).all()):
            raise EvidenceError(f"scores of group {group!r} are not finite; check the weights and the batches.")
