"""Budgets are met and used up, by the units that the scores say, within floors and rounding."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import traced
from secateur.cost.macs import graph_macs, graph_params
from secateur.errors import BudgetError, EvidenceError
from secateur.prune.allocate import allocate
from secateur.prune.budget import MacsBudget, ParamsBudget
from secateur.prune.criteria.uniform_width import UniformWidth

NAMES = ("concat_skip", "grouped", "unet", "dyn_unet")
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
        width = graph.group(group_id).width
        assert min(floor, width) <= len(kept) < width
        assert len(kept) % round_to == 0
        left = [unit for unit in range(width) if unit not in kept]
        assert max(scores[group_id][left]) <= min(scores[group_id][list(kept)])
        wider = min(width, len(kept) + round_to)  # one step more in any group would break the budget
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
    assert all(len(kept) == min(round_to, graph.group(group).width) for group, kept in plan.kept.items())
    with pytest.raises(BudgetError, match="cannot be reached"):
        allocate(graph, scores, budget(nearest - 0.0002), round_to=round_to)


def test_unusable_scores_are_refused():
    graph = traced("concat_skip")[1]
    good = {"first": torch.rand(6), "conv": torch.rand(4)}
    for bad, message in (
        ({"conv": torch.tensor([1.0, float("nan"), 0.0, 2.0])}, "'conv' are not finite"),
        ({"conv": torch.tensor([1.0, float("inf"), 0.0, 2.0])}, "'conv' are not finite"),
        ({"conv": torch.rand(5)}, r"'conv' have shape \(5,\); the graph has 4 channels"),
        ({"stem": torch.rand(5)}, r"'stem' have shape \(5,\); the graph has no channels there"),
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
