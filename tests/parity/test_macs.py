"""Predicted multiply-adds against the closed form of each layer and against torch's counter on the real network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from masking import random_plan
from networks import ZOO, traced
from secateur.cost.macs import WidthCost, count_macs, count_params, graph_macs, graph_params, macs_by_module
from secateur.graph.trace import trace_channels
from secateur.prune.surgery import cut_, remove

LAYERS = {  # on 3 channels of 12 x 12
    "plain": (nn.Conv2d(3, 8, 3, padding=1), 3 * 8 * 9 * 12 * 12),
    "strided": (nn.Conv2d(3, 8, 5, stride=2, padding=2), 3 * 8 * 25 * 6 * 6),
    "dilated": (nn.Conv2d(3, 8, 3, dilation=2), 3 * 8 * 9 * 8 * 8),
    "grouped": (nn.Conv2d(3, 6, (1, 3), groups=3), 1 * 6 * 3 * 12 * 10),
    "transposed": (nn.ConvTranspose2d(3, 8, 2, stride=2), 3 * 8 * 4 * 12 * 12),
    "transposed and grouped": (nn.ConvTranspose2d(3, 6, 4, stride=2, groups=3), 3 * 2 * 16 * 12 * 12),
    "linear": (nn.Linear(12, 5), 12 * 5 * 3 * 12),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_layer_by_its_formula(name):
    layer, wanted = LAYERS[name]
    x = torch.randn(2, 3, 12, 12)
    graph = trace_channels(nn.Sequential(layer, nn.ReLU()), x)
    assert graph_macs(graph) == wanted
    assert count_macs(layer, x) == wanted
    assert graph_params(graph) == count_params(layer) == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 8, 3), nn.ConvTranspose1d(3, 8, 3), nn.Conv3d(3, 8, 3)])
def test_other_dimensions(layer):
    space = {nn.Conv1d: (12,), nn.ConvTranspose1d: (12,), nn.Conv3d: (4, 6, 8)}[type(layer)]
    positions = {nn.Conv1d: 10, nn.ConvTranspose1d: 12, nn.Conv3d: 2 * 4 * 6}[type(layer)]
    graph = trace_channels(layer, torch.randn(1, 3, *space))
    assert graph_macs(graph) == layer.weight.numel() * positions


def test_a_layer_called_twice_counts_twice_and_weighs_once():
    model, graph = traced("called_twice")
    assert graph_macs(graph) == 64 * (3 * 6 * 9 + 2 * 6 * 6 * 9 + 6)
    assert graph_params(graph) == count_params(model) == 3 * 6 * 9 + 6 + 6 * 6 * 9 + 6 + 6 + 1


def flops(model, inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*inputs)
    return counter.get_total_flops()


@settings(max_examples=25)
@given(
    name=st.sampled_from(["unet_residual", "dyn_unet_deep", "grouped", "depthwise_multiplier", "transposed"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_predictions_hold_on_the_smaller_network(name, seed):
    model, graph = traced(name)
    plan = random_plan(graph, seed=seed)
    small = remove(model, graph, plan) if seed % 8 == 0 else _cut(model, graph, plan)
    wanted = flops(small, ZOO[name].inputs()) // 2, sum(parameter.numel() for parameter in small.parameters())
    shrunk = graph.keep(plan.kept)
    assert (graph_macs(shrunk), graph_params(shrunk)) == wanted
    removed = [group.width - len(plan.kept.get(group.id, range(group.width))) for group in graph.groups]
    costs = WidthCost(graph)
    assert (costs.macs(removed), costs.params(removed)) == wanted


def test_costs_do_not_depend_on_what_was_asked_before():
    graph = traced("unet")[1]
    drawn = np.random.default_rng(0)
    costs, plans = WidthCost(graph), [random_plan(graph, seed=seed) for seed in range(8)]
    for number in drawn.integers(len(plans), size=20).tolist():
        kept = dict(plans[number].kept)
        if kept and drawn.random() < 0.5:  # as a search does: one group moves
            kept = dict([kept.popitem()])
        removed = [group.width - len(kept.get(group.id, range(group.width))) for group in graph.groups]
        shrunk = graph.keep(kept)
        assert (costs.macs(removed), costs.params(removed)) == (graph_macs(shrunk), graph_params(shrunk))
    whole = [0] * len(graph.groups)
    assert (costs.macs(whole), costs.params(whole)) == (graph_macs(graph), graph_params(graph))


def _cut(model, graph, plan):
    from secateur.graph.copying import safe_copy

    twin = safe_copy(model)
    cut_(twin, graph, plan.kept)
    return twin


def test_the_batch_does_not_count():
    model = traced("unet")[0]
    counts = {count_macs(model, ZOO["unet"].inputs(batch=batch)) for batch in (1, 3)}
    counts |= {graph_macs(trace_channels(model, ZOO["unet"].inputs(batch=batch))) for batch in (1, 3)}
    assert len(counts) == 1


def test_modules_add_up_and_what_is_outside_them_is_named():
    model, inputs = traced("functional_conv")[0], ZOO["functional_conv"].inputs(batch=2)
    training = model.training
    found = dict(macs_by_module(model, inputs))
    assert found == {"first": 64 * 3 * 6 * 9, "last": 64 * 4, "(outside leaf modules)": 64 * 6 * 4}
    assert model.training == training
