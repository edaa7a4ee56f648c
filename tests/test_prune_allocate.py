"""Budgets are met and used up, by the units that the scores say, within floors and rounding."""

import re
from functools import cache
from math import lcm

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from networks import traced
from secateur.cost.macs import graph_macs, graph_params
from secateur.errors import BudgetError, EvidenceError
from secateur.prune.allocate import Floors, allocate
from secateur.prune.budget import MacsBudget, ParamsBudget
from secateur.prune.criteria.uniform_width import UniformWidth
from secateur.prune.surgery import remove
from secateur.prune.trial import trace

NAMES = ("concat_skip", "grouped", "unet", "dyn_unet")
UNIT = {"grouped": 2}  # channels: one of each convolution group
COSTS = {MacsBudget: graph_macs, ParamsBudget: graph_params}

names = st.sampled_from(NAMES)
budgets = st.sampled_from([MacsBudget, ParamsBudget])
ratios = st.floats(0.3, 1.0)
seeds = st.integers(0, 2**32 - 1)


def random_scores(graph, seed, *, ties=False):
    generator = torch.Generator().manual_seed(seed)
    scores = {g.id: torch.rand(g.width, generator=generator, dtype=torch.float64) for g in graph.groups}
    return {group: (values * 4).round() for group, values in scores.items()} if ties else scores


def slow_reference(graph, scores, cost, allowed):
    """Unit by unit, from the definition: worst leaves first until it fits; then the best come back while it does."""
    kept = {g.id: list(range(g.width)) for g in graph.groups}
    units = sorted((float(scores[g.id][u]), -u, i) for i, g in enumerate(graph.groups) for u in range(g.width))
    gone = []

    def now():
        return cost(graph.keep({group: tuple(units) for group, units in kept.items()}))

    for _, negative, index in units:
        if now() <= allowed:
            break
        group = graph.groups[index].id
        gone.append((group, -negative))
        if len(kept[group]) > 1:
            kept[group].remove(-negative)
    blocked = set()
    for group, unit in reversed(gone):
        if group not in blocked and unit not in kept[group]:
            kept[group] = sorted([*kept[group], unit])
            if now() > allowed:
                kept[group].remove(unit)
                blocked.add(group)
    return {group: tuple(units) for group, units in kept.items()}


@settings(max_examples=25)
@given(name=st.sampled_from(["concat_skip", "grouped", "unet"]), budget=budgets, ratio=ratios, seed=seeds)
def test_the_plan_is_that_of_a_slow_loop(name, budget, ratio, seed):
    graph = traced(name)[1]
    scores = random_scores(graph, seed, ties=seed % 2 == 0)
    cost = COSTS[budget]
    wanted = slow_reference(graph, scores, cost, ratio * cost(graph) + 1e-6)
    plan = allocate(graph, scores, budget(ratio))
    assert {g.id: plan.kept.get(g.id, tuple(range(g.width))) for g in graph.groups} == wanted


@settings(max_examples=60)
@given(name=names, budget=budgets, ratio=ratios, seed=seeds, round_to=st.integers(1, 4), floor=st.integers(1, 3))
def test_budgets_are_met_and_used_up(name, budget, ratio, seed, round_to, floor):
    graph = traced(name)[1]
    cost = COSTS[budget]
    scores = random_scores(graph, seed)
    try:
        plan = allocate(graph, scores, budget(ratio), round_to=round_to, min_channels=floor)
    except BudgetError:
        return
    reached = graph.keep(plan.kept)
    assert cost(reached) <= ratio * cost(graph) + 1e-6
    assert plan.reached["macs"] == graph_macs(reached)
    assert plan.reached["params"] == graph_params(reached)
    assert plan.reached["macs_keep_ratio"] == graph_macs(reached) / graph_macs(graph)
    for group_id, kept in plan.kept.items():
        width, unit = graph.group(group_id).width, UNIT.get(name, 1)
        assert min(floor, width * unit) <= len(kept) * unit < width * unit
        assert len(kept) * unit % round_to == 0
        left = [unit for unit in range(width) if unit not in kept]
        assert max(scores[group_id][left]) <= min(scores[group_id][list(kept)])
        wider = min(width, len(kept) + lcm(round_to, unit) // unit)  # one step more in any group would break the budget
        with_more = plan.kept | {group_id: tuple(range(wider))}
        assert cost(graph.keep(with_more)) > ratio * cost(graph) + 1e-6


def test_among_equal_scores_the_higher_index_leaves_first():
    graph = traced("concat_skip")[1]
    scores = {"first": torch.zeros(6), "conv": torch.zeros(4)}
    plan = allocate(graph, scores, MacsBudget(0.4))
    assert plan.kept
    assert all(kept == tuple(range(len(kept))) for kept in plan.kept.values())


def test_a_full_budget_removes_nothing():
    graph = traced("dyn_unet")[1]
    plan = allocate(graph, random_scores(graph, 0), MacsBudget(1.0), round_to=4)
    assert plan.kept == {}
    assert plan.reached["macs_keep_ratio"] == plan.reached["params_keep_ratio"] == 1.0


def test_groups_without_scores_stay_whole():
    graph = traced("concat_skip")[1]
    plan = allocate(graph, {"first": torch.arange(6.0)}, MacsBudget(0.5))
    assert plan.kept.keys() == {"first"}
    with pytest.raises(BudgetError, match="cannot be reached"):
        allocate(graph, {"conv": torch.arange(4.0)}, MacsBudget(0.2))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_share_out_of_range_is_refused(ratio):
    with pytest.raises(BudgetError, match=rf"keeps {ratio} of the macs; give a share above 0 and at most 1"):
        MacsBudget(ratio)


def test_floors_below_one_are_refused():
    graph = traced("unet")[1]
    with pytest.raises(BudgetError, match="start at 1; got 0 and 1"):
        allocate(graph, random_scores(graph, 0), MacsBudget(0.5), round_to=0)
    with pytest.raises(BudgetError, match="start at 1; got 1 and 0"):
        allocate(graph, random_scores(graph, 0), MacsBudget(0.5), min_channels=0)


@pytest.mark.parametrize("budget", [MacsBudget, ParamsBudget])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("round_to", [1, 2])
def test_the_nearest_budget_named_can_be_met(name, budget, round_to):
    graph = traced(name)[1]
    scores = random_scores(graph, 1)
    with pytest.raises(BudgetError, match=rf"{budget.kind} <= 0.0001 .* at least {round_to} channels") as caught:
        allocate(graph, scores, budget(0.0001), round_to=round_to)
    nearest = float(re.search(r"keeps (0\.\d+) of its", str(caught.value))[1])
    plan = allocate(graph, scores, budget(nearest), round_to=round_to)
    least = max(1, round_to // UNIT.get(name, 1))
    assert all(len(kept) == min(least, graph.group(group).width) for group, kept in plan.kept.items())
    with pytest.raises(BudgetError, match="cannot be reached"):
        allocate(graph, scores, budget(nearest - 0.0002), round_to=round_to)


class Units(nn.Sequential):
    """Norm groups of four channels, then of three, then single channels."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 32, 1), nn.GroupNorm(8, 32), nn.Conv2d(32, 24, 1), nn.GroupNorm(8, 24),
            nn.Conv2d(24, 16, 1), nn.Conv2d(16, 1, 1),
        )  # fmt: skip


@cache
def units():
    model = Units()
    return model, trace(model, torch.zeros(1, 3, 8, 8))


SMALLEST = [  # round_to, min_channels, share; the widths that stay at least
    (1, 1, 0.0, [4, 3, 1]),
    (8, 8, 0.0, [8, 24, 8]),  # of units of three channels the first multiple of eight is all eight of them
    (6, 1, 0.0, [12, 6, 6]),
    (1, 10, 0.0, [12, 12, 10]),
    (2, 7, 0.0, [8, 12, 8]),
    (4, 1, 0.3, [12, 12, 8]),
    (64, 1, 0.0, [32, 24, 16]),
]


@pytest.mark.parametrize(("round_to", "min_channels", "share", "widths"), SMALLEST)
def test_floors_and_multiples_count_channels_of_whole_units(round_to, min_channels, share, widths):
    model, graph = units()
    floors = {"round_to": round_to, "min_channels": min_channels, "min_keep_ratio": share}
    scores = random_scores(graph, 0)
    with pytest.raises(BudgetError) as caught:
        allocate(graph, scores, MacsBudget(1e-4), **floors)
    nearest = float(re.search(r"keeps ([01]\.\d+) of its", str(caught.value))[1])
    small = remove(model, graph, allocate(graph, scores, MacsBudget(nearest), **floors))
    assert [small[index].out_channels for index in (0, 2, 4)] == widths


@settings(max_examples=40)
@given(ratio=st.floats(0.3, 1.0), seed=seeds, round_to=st.integers(1, 12), floor=st.integers(1, 20))
def test_widths_are_multiples_in_channels_or_whole(ratio, seed, round_to, floor):
    graph = units()[1]
    try:
        plan = allocate(graph, random_scores(graph, seed), MacsBudget(ratio), round_to=round_to, min_channels=floor)
    except BudgetError:
        return
    shapes = graph.keep(plan.kept).shapes
    for index, width in ((0, 32), (2, 24), (4, 16)):
        kept = shapes[f"{index}.weight"][0]
        assert kept == width or (kept >= floor and kept % round_to == 0)


def test_an_attention_counts_the_features_of_its_heads():
    """Three heads of two features, each with queries, keys and values; an MLP of eight."""
    graph = traced("fused_attention")[1]
    scores = random_scores(graph, 0)
    for floor, heads, hidden in ((1, 1, 1), (2, 1, 2), (3, 2, 3), (99, 3, 8)):
        least = Floors(min_channels=floor)
        assert [least.kept(graph.group(name)) for name in ("qkv", "up")] == [heads, hidden]
    with pytest.raises(BudgetError, match="at least 2 channels"):
        allocate(graph, scores, MacsBudget(0.01), min_channels=2)
    assert Floors(round_to=4).kept(graph.group("qkv")) == 2
    assert Floors(round_to=8).kept(graph.group("qkv")) == 3  # four heads would be a multiple: all stay


FLOORS_IN_WORDS = [
    ({}, r"with at least 1 channels in every group that has more \(in units of up to 4\) .*; ask for at least that\.$"),
    ({"min_channels": 8}, r"at least 8 channels .* or lower --min-channels 8\.$"),
    ({"round_to": 6, "min_channels": 8}, r"at least 12 channels .* or lower --min-channels 8 or --round-to 6\.$"),
    ({"min_keep_ratio": 0.25}, r"1 channels and 25% of its width .*, or lower --set pruning\.min_keep_ratio=0\.25\.$"),
]


@pytest.mark.parametrize(("floors", "words"), FLOORS_IN_WORDS)
def test_a_refusal_names_what_to_lower(floors, words):
    graph = units()[1]
    with pytest.raises(BudgetError, match=words):
        allocate(graph, random_scores(graph, 0), MacsBudget(1e-4), **floors)
    single = traced("unet")[1]
    with pytest.raises(BudgetError, match="in every group that has more the network keeps"):
        allocate(single, random_scores(single, 0), MacsBudget(1e-4), **floors)


def test_unusable_scores_are_refused():
    graph = traced("concat_skip")[1]
    good = {"first": torch.rand(6), "conv": torch.rand(4)}
    for bad, message in (
        ({"conv": torch.tensor([1.0, float("nan"), 0.0, 2.0])}, "'conv' are not finite"),
        ({"conv": torch.tensor([1.0, float("inf"), 0.0, 2.0])}, "'conv' are not finite"),
        ({"conv": torch.rand(5)}, r"'conv' have shape \(5,\); the graph has 4 units"),
        ({"stem": torch.rand(5)}, r"'stem' have shape \(5,\); the graph has no units there"),
    ):
        with pytest.raises(EvidenceError, match=message):
            allocate(graph, good | bad, MacsBudget(0.5))


@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.1])
def test_uniform_width_keeps_the_same_share_everywhere(ratio):
    model, graph = traced("dyn_unet_residual")
    plan = allocate(graph, UniformWidth().score(model, graph), MacsBudget(ratio))
    kept = [(len(plan.kept.get(group.id, range(group.width))), group.width) for group in graph.groups]
    lowest, highest = max((k - 1) / width for k, width in kept), min((k + 1) / width for k, width in kept)
    assert lowest <= highest  # some share is within one unit of what every group keeps
    assert 0 < lowest < 1


def test_no_group_falls_below_its_share_of_width():
    graph = traced("unet")[1]
    scores = random_scores(graph, 0)
    victim = graph.groups[0]
    scores[victim.id] = scores[victim.id] - 10  # worst everywhere: only a floor keeps them
    bare = allocate(graph, scores, MacsBudget(0.5))
    floored = allocate(graph, scores, MacsBudget(0.5), min_keep_ratio=0.5)
    assert len(bare.kept[victim.id]) == 1
    assert len(floored.kept[victim.id]) == (victim.width + 1) // 2
    assert all(len(kept) >= graph.group(group).width / 2 for group, kept in floored.kept.items())
    with pytest.raises(BudgetError, match="with at least 1 channels and 50% of its width in every group"):
        allocate(graph, scores, MacsBudget(0.1), min_keep_ratio=0.5)
    with pytest.raises(BudgetError, match=r"from 0 to 1; got 1\.5"):
        allocate(graph, scores, MacsBudget(0.5), min_keep_ratio=1.5)
