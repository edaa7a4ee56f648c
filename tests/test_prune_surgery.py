"""What removal keeps of a network besides its output."""

import pytest
import torch
from torch import nn

from masking import assert_same_outputs, halving, plan_of, random_plan, scramble_, silenced
from networks import ZOO, Depthwise, Grouped, build, monai, traced
from secateur.errors import PlanMismatchError
from secateur.prune.surgery import cut_, remove
from secateur.prune.trial import trace


def every_other(tensor, *dims):
    for dim in dims:
        tensor = tensor.index_select(dim, torch.arange(0, tensor.shape[dim], 2))
    return tensor


def test_weights_buffers_and_gradients_are_the_kept_slices():
    model, graph = build("residual"), traced("residual")[1]
    model(*ZOO["residual"].inputs(batch=2)).sum().backward()
    small = remove(model, graph, halving(graph))
    for name, dims in {"first.weight": (0,), "conv.weight": (0, 1), "last.weight": (1,), "norm.bias": (0,)}.items():
        before, after = model.get_parameter(name), small.get_parameter(name)
        assert torch.equal(after, every_other(before, *dims))
        assert torch.equal(after.grad, every_other(before.grad, *dims))
        assert isinstance(after, nn.Parameter)
        assert after.is_leaf
    assert torch.equal(small.norm.running_var, every_other(model.norm.running_var, 0))
    assert torch.equal(small.norm.num_batches_tracked, model.norm.num_batches_tracked)


def test_what_is_frozen_stays_frozen():
    model, graph = build("residual"), traced("residual")[1]
    model.first.requires_grad_(False)
    small = remove(model, graph, halving(graph))
    flags = {name: parameter.requires_grad for name, parameter in small.named_parameters()}
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert small.first.weight.grad is None


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_kept_module_by_module(training):
    model, graph = build("residual").train(training), traced("residual")[1]
    model.norm.train(not training)
    small = remove(model, graph, halving(graph))
    assert [module.training for module in small.modules()] == [module.training for module in model.modules()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types_are_kept(dtype):
    model, graph = build("residual").to(dtype), traced("residual")[1]
    small = remove(model, graph, halving(graph))
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    assert small.norm.num_batches_tracked.dtype is torch.int64


def test_memory_format_is_kept():
    model = build("dyn_unet").to(memory_format=torch.channels_last)
    model(*ZOO["dyn_unet"].inputs()).sum().backward()
    small = remove(model, traced("dyn_unet")[1], halving(traced("dyn_unet")[1]))
    weights = [parameter for parameter in small.parameters() if parameter.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert any(not weight.is_contiguous() for weight in weights)
    plain = remove(build("dyn_unet"), traced("dyn_unet")[1], halving(traced("dyn_unet")[1]))
    assert all(parameter.is_contiguous() for parameter in plain.parameters())


def test_hooks_and_aliases_survive():
    model, graph = build("aliased"), traced("aliased")[1]
    calls = []
    model.here.register_forward_hook(lambda *_: calls.append(1))
    small = remove(model, graph, halving(graph))
    assert small.there is small.here is small.everywhere[0]
    assert small.here.weight.shape == (3, 3, 3, 3)
    calls.clear()
    small(*ZOO["aliased"].inputs())
    assert len(calls) == 2


def test_one_parameter_of_two_modules_stays_one():
    model = build("residual")
    model.other = nn.Conv2d(6, 6, 3, padding=1)
    model.other.weight = model.conv.weight
    small = remove(model, trace(model, ZOO["residual"].inputs()), halving(traced("residual")[1]))
    assert small.other.weight is small.conv.weight
    assert small.conv.weight.shape == (3, 3, 3, 3)


_LEVELS = ((3, 3, 3), (1, 2, 2), (2, 2))
THINNER = {  # the networks of the zoo, built with half of every hidden width
    "basic_unet": monai("BasicUNet", 32, 2, 3, 1, features=(2, 2, 4, 4, 8, 2)),
    "unet": monai("UNet", 16, 2, 3, 1, (2, 4, 8), (2, 2)),
    "unet_residual": monai("UNet", 16, 2, 3, 1, (2, 4, 8), (2, 2), num_res_units=2, dropout=0.2),
    "unet_batch_norm": monai("UNet", 16, 2, 3, 1, (2, 4, 8), (2, 2), num_res_units=2, norm="BATCH"),
    "dyn_unet_residual": monai("DynUNet", 16, 2, 3, 1, *_LEVELS, filters=(2, 4, 8), res_block=True),
}


@pytest.mark.parametrize("name", THINNER)
def test_the_smaller_network_reads_like_one_built_thinner(name):
    """Every width that a module remembers is right: its description is that of a network made at this size."""
    model, graph = traced(name)
    small, thin = remove(model, graph, halving(graph)), THINNER[name].build()
    shapes = [{n: tuple(t.shape) for n, t in network.state_dict().items()} for network in (small, thin)]
    assert shapes[0] == shapes[1]
    assert repr(small) == repr(thin)


@pytest.mark.parametrize(
    ("network", "kept", "groups", "shapes"),
    [
        (Grouped, {"first": (1,)}, 2, {"first": (2, 3, 3, 3), "grouped": (8, 1, 3, 3)}),
        (Grouped, {"first": (0, 2), "grouped": (3,)}, 2, {"first": (4, 3, 3, 3), "grouped": (2, 2, 3, 3)}),
        (Depthwise, {"first": (0, 5)}, 2, {"first": (2, 3, 3, 3), "depthwise": (2, 1, 3, 3)}),
        (lambda: Depthwise(multiplier=2), {"first": (4,)}, 1, {"depthwise": (2, 1, 3, 3), "last": (1, 2, 1, 1)}),
    ],
)
def test_convolution_groups(network, kept, groups, shapes):
    """A grouped convolution keeps its groups, a depthwise one has one for each channel."""
    model = network()
    graph = trace(model, torch.randn(1, 3, 8, 8))
    small = remove(model, graph, plan_of(graph, kept))
    changed = getattr(small, "grouped", None) or small.depthwise
    assert changed.groups == groups
    assert (changed.in_channels, changed.out_channels) == (
        small.first.out_channels, small.last.in_channels,
    )  # fmt: skip
    assert {name: tuple(small.get_submodule(name).weight.shape) for name in shapes} == shapes


def test_a_grouped_convolution_at_one_channel_a_group_is_not_taken_for_a_depthwise_one():
    model, graph = build("grouped"), traced("grouped")[1]
    first, second = plan_of(graph, {"first": (1,)}), {"grouped": (0, 3)}
    narrow, shrunk = remove(model, graph, first), graph.keep(first.kept)
    small = remove(narrow, shrunk, plan_of(shrunk, second))
    assert small.grouped.groups == 2
    assert small.grouped.weight.shape == (4, 1, 3, 3)


@pytest.mark.parametrize("name", ["unet_residual", "dyn_unet_deep", "grouped", "depthwise_multiplier"])
def test_removing_twice_is_removing_once_with_the_composed_plan(name):
    model, graph = build(name), traced(name)[1]
    scramble_(model, seed=2)
    first = random_plan(graph, seed=3)
    middle, shrunk = remove(model, graph, first), graph.keep(first.kept)
    second = random_plan(shrunk, seed=4)
    twice, once = remove(middle, shrunk, second), remove(model, graph, first.then(second))
    torch.testing.assert_close(twice.state_dict(), once.state_dict(), rtol=0, atol=0)
    assert repr(twice) == repr(once)
    assert_same_outputs(silenced(model, graph, first.then(second)), twice, ZOO[name].inputs(batch=2))


def test_a_smaller_network_can_be_traced_trained_and_cut_again():
    model, graph = build("unet_residual"), traced("unet_residual")[1]
    small = remove(model, graph, halving(graph))
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in small.parameters()]
    small.train()(*ZOO["unet_residual"].inputs(batch=2)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True) if a.numel() > 8)
    again = trace(small, ZOO["unet_residual"].inputs())
    assert {group.width for group in again.groups} == {2, 4, 8}
    assert remove(small, again, halving(again)).training


def test_a_graph_of_another_network_is_refused():
    model, graph = traced("residual")
    with pytest.raises(PlanMismatchError, match=r"'first.weight' of shape \(6, 3, 3, 3\), .* \(3, 3, 3, 3\)"):
        remove(remove(model, graph, halving(graph)), graph, halving(graph))
    with pytest.raises(PlanMismatchError, match=r"'norm.weight' of shape \(6,\), .* no such tensor"):
        remove(build("channel_prelu"), graph, halving(graph))


class Tied(nn.Module):
    """Two modules that hold one parameter, and read it at different places."""

    def __init__(self):
        super().__init__()
        self.first, self.one, self.other = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.other.weight = self.one.weight
        self.last = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        return self.last(self.other(self.one(self.first(x)).relu()))


def test_modules_that_share_a_parameter_share_the_smaller_one():
    """In place too, where each holder is given the new one."""
    model = Tied()
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    cut_(model, graph, halving(graph).kept)
    assert model.one.weight.shape[0] < 6
    assert model.one.weight is model.other.weight
    assert model.one.out_channels == model.other.out_channels == model.one.weight.shape[0]
    model(torch.zeros(1, 3, 8, 8))
