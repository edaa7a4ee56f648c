"""Weights that are computed from others: weight norm loses its outputs, all else is pinned with the reason."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import secateur as sc
from masking import halving, silence_
from secateur.prune.surgery import cut_
from toys import Toy

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """Any function of the weight."""

    def forward(self, weight):
        return 0.5 * weight


class Network(Toy):
    """``conv`` has a computed weight or bias; what ``wide`` writes is free in any case."""

    def __init__(self, compute):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the older weight norm
            self.conv = compute(nn.Conv2d(6, 6, 3, padding=1))
        self.wide = nn.Conv2d(6, 6, 1)

    def middle(self, x):
        return self.wide(F.relu(self.conv(F.relu(x))))


def scaled(name):
    def compute(conv):
        parametrize.register_parametrization(conv, name, Scaled())
        return conv

    return compute


OUT = {"last": "network output"}
LENGTH = "weight norm takes the length of a weight over all its inputs"
NO_RULE = "operator conv2d has no rule here"

COMPUTED = {  # name -> how, free groups, pinned module: part of the reason
    "weight norm": (
        parametrizations.weight_norm, {"conv.parametrizations.weight": 6, "wide": 6}, OUT | {"first": LENGTH}
    ),
    "weight norm by a hook": (nn.utils.weight_norm, {"conv": 6, "wide": 6}, OUT | {"first": LENGTH}),
    "weight norm per input": (
        lambda conv: parametrizations.weight_norm(conv, dim=1), {"wide": 6},
        OUT | {"first": NO_RULE, "conv.parametrizations.weight": "operator _weight_norm has no rule here"},
    ),
    "spectral norm": (
        parametrizations.spectral_norm, {"wide": 6},
        OUT | {"first": NO_RULE, "conv.parametrizations.weight": "operator flatten has no rule here"},
    ),
    "spectral norm by a hook": (
        nn.utils.spectral_norm, {"wide": 6}, OUT | {"first": NO_RULE, "conv": "operator reshape has no rule here"}
    ),
    "orthogonal": (
        parametrizations.orthogonal, {"wide": 6},
        OUT | {"first": NO_RULE, "conv.parametrizations.weight": "operator tril has no rule here",
               "conv.parametrizations.weight.0": "operator matmul has no rule here"},
    ),
    "any weight": (
        scaled("weight"), {"wide": 6},
        OUT | {"first": NO_RULE, "conv.parametrizations.weight": "operator mul has no rule here"},
    ),
    "any bias": (
        scaled("bias"), {"first": 6, "wide": 6}, OUT | {"conv": "the bias is computed, not a parameter"}
    ),
    "masked weight": (
        lambda conv: prune.l1_unstructured(conv, "weight", amount=0.3), {"wide": 6},
        OUT | {"first": NO_RULE, "conv": "operator mul has no rule here"},
    ),
    "mask made permanent": (
        lambda conv: prune.remove(prune.l1_unstructured(conv, "weight", amount=0.3), "weight"),
        {"first": 6, "conv": 6, "wide": 6}, OUT,
    ),
}  # fmt: skip


def build(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(COMPUTED[name][0])


def values(model):
    return copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_free_leaves_and_the_rest_says_why(name):
    _, groups, pins = COMPUTED[name]
    model = build(name)
    before = values(model)
    graph = sc.trace(model, IMAGE[:1])
    assert {group.id: group.width for group in graph.groups} == groups
    assert {pin.module for pin in graph.pinned} == pins.keys()
    assert all(pins[pin.module] in pin.reason for pin in graph.pinned)
    plan = halving(graph)
    small = sc.remove(model, graph, plan).double().eval()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)  # no step of a power iteration either
    left = 3 if any(group.startswith("conv") for group in groups) else 6
    assert (small.conv.out_channels, small.wide.in_channels, small.wide.out_channels) == (left, left, 3)
    silence_(model, graph, plan)
    torch.testing.assert_close(small(IMAGE.double()), model.double().eval()(IMAGE.double()), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", COMPUTED)
def test_in_the_middle_of_training(name):
    """What is computed goes on from where it was, and the next step runs."""
    model, graph = build(name), sc.trace(build(name), IMAGE[:1])
    optimizer = torch.optim.AdamW(model.parameters())

    def step():
        optimizer.zero_grad()
        model(IMAGE).square().mean().backward()
        optimizer.step()

    step()
    before, plan = values(model), halving(graph)
    graph = sc.remove_(model, graph, plan, optimizer=optimizer)
    same = {key: value for key, value in before.items() if value.shape == model.state_dict()[key].shape}
    assert same
    after = {key: value for key, value in values(model).items() if key in same}
    torch.testing.assert_close(after, same, rtol=0, atol=0)
    step()
    again = sc.trace(model, IMAGE[:1])
    assert {group.id: group.width for group in again.groups} == {group.id: group.width for group in graph.groups}


def test_removal_does_not_run_what_computes_a_weight():
    """A spectral norm in train mode would take a step at every look at its weight."""
    model = build("spectral norm").train()
    norm = model.conv.parametrizations.weight[0]
    before = norm._u.clone()
    graph = sc.trace(model, IMAGE[:1])
    cut_(model, graph, halving(graph).kept)
    assert torch.equal(norm._u, before)
    assert model.conv.weight.shape == (6, 6, 3, 3)
    assert not torch.equal(norm._u, before)  # as it does here
