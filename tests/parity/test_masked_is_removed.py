"""Masked equals removed: every network, every criterion, random plans, fresh and scrambled weights, both modes."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from masking import assert_same_outputs, halving, plan_of, random_plan, scramble_, silenced
from networks import MONAI, SLOW, TOYS, ZOO, build, traced
from secateur.prune.allocate import allocate
from secateur.prune.budget import MacsBudget
from secateur.prune.criteria import CRITERIA
from secateur.prune.evidence import Evidence
from secateur.prune.surgery import cut_, remove

PINNED = (
    "computed_kernel",
    "stacked",
    "widths_together",
    "standardised_kernel",
    "width_of_the_stream",
)  # no group is left of these
PRUNABLE = [name for name in ZOO if name not in PINNED]
seeds = st.integers(1, 2**32 - 1)
fresh_or_not = pytest.mark.parametrize("fresh", [True, False])


def networks(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]
    )


def check(name, fresh, seed):
    graph = traced(name)[1]
    plan = random_plan(graph, seed=seed)
    network = build(name, seed=seed)
    if not fresh:
        scramble_(network, seed=seed)
    small = remove(network, graph, plan)
    assert_same_outputs(silenced(network, graph, plan), small, ZOO[name].inputs(batch=2, seed=seed))


@networks([name for name in PRUNABLE if name in MONAI])
@fresh_or_not
@settings(max_examples=1, derandomize=True)
@given(seed=seeds)
def test_random_plans_on_medical_networks(name, fresh, seed):
    check(name, fresh, seed)


@networks([name for name in PRUNABLE if name in TOYS])
@fresh_or_not
@settings(max_examples=3, derandomize=True)
@given(seed=seeds)
def test_random_plans_on_patterns(name, fresh, seed):
    check(name, fresh, seed)


@pytest.mark.slow
@networks(PRUNABLE)
@fresh_or_not
@settings(max_examples=8)
@given(seed=seeds)
def test_many_random_plans(name, fresh, seed):
    check(name, fresh, seed)


def loss(output, target):
    return (output * target.expand_as(output)).flatten(1).mean(1)


@networks([name for name in PRUNABLE if name in MONAI])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion(name, criterion):
    model, graph = traced(name)
    generator = torch.Generator().manual_seed(3)
    side = ZOO[name].shapes[0][-1]
    target = torch.randn(2, 1, side, side, generator=generator)
    evidence = Evidence([(ZOO[name].inputs(batch=2, seed=1), target)], loss)
    plan = allocate(graph, CRITERIA[criterion](0).score(model, graph, evidence), MacsBudget(0.4))
    assert plan.kept
    small = copy.deepcopy(model)
    cut_(small, graph, plan.kept)  # what `remove` does before its own proof, which needs no second judge 81 times
    assert_same_outputs(silenced(model, graph, plan), small, ZOO[name].inputs(batch=2, seed=2))


@networks(MONAI)
def test_the_comparison_can_fail(name):
    """A network whose consumers still read what the other has lost is another network."""
    model, graph = traced(name)
    model = copy.deepcopy(model)
    scramble_(model, seed=0)
    small = remove(model, graph, halving(graph))
    with pytest.raises(AssertionError, match="not close"):
        assert_same_outputs(model, small, ZOO[name].inputs(batch=2))


def test_a_removal_of_single_units_in_turn():
    """Single units of a residual U-Net: no index is right by chance of its neighbours."""
    model, graph = build("dyn_unet_residual"), traced("dyn_unet_residual")[1]
    scramble_(model, seed=1)
    inputs = ZOO["dyn_unet_residual"].inputs(batch=2)
    for group in graph.groups[::2]:
        for gone in range(1, group.width, 4):
            plan = plan_of(graph, {group.id: tuple(unit for unit in range(group.width) if unit != gone)})
            assert_same_outputs(silenced(model, graph, plan), remove(model, graph, plan), inputs)
