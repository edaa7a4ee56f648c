"""The two-branch networks: shapes, branches that share nothing but what they should, and every channel removable."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import secateur as sc
from secateur.errors import InputError
from secateur.nets.nuclei import SharedEncoder, TwoNetworks, shared_encoder, two_networks
from secateur.train.fresh import draw_anew_

SPECS = {"two networks": two_networks((4, 8, 16)), "shared encoder": shared_encoder((4, 8, 16))}


@pytest.fixture(params=list(SPECS))
def model(request):
    torch.manual_seed(0)
    return SPECS[request.param].build()


def names(model):
    return {name.split(".")[0] for name, _ in model.named_parameters()}


def halved(model, graph):
    return sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(keep_ratio=0.3))


def test_branches_have_their_names_in_the_parameters():
    assert names(SPECS["two networks"].build()) == {"semantic", "distance"}
    assert names(SPECS["shared encoder"].build()) == {"encoder", "semantic", "distance"}


def test_channel_0_is_the_semantic_branch_and_channel_1_the_distance(model):
    image = torch.rand(2, 3, 16, 24)
    for channel, branch in enumerate(("semantic", "distance")):
        model.zero_grad()
        output = model.eval()(image)
        assert output.shape == (2, 2, 16, 24)
        output[:, channel].square().sum().backward()
        reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == {branch} | (names(model) & {"encoder"})


def u_net_by_hand(weights, image, levels):
    """The published layers one after the other, from parameters by name; drop-out off."""

    def stage(name, x):
        for part in (0, 1):
            x = F.relu(
                F.conv2d(x, weights[f"{name}.{part}.conv.weight"], weights[f"{name}.{part}.conv.bias"], padding=1)
            )
        return x

    features = [stage("encoder.levels.0", image)]
    for level in range(1, levels):
        features.append(stage(f"encoder.levels.{level}", F.max_pool2d(features[-1], 2)))
    x = features[-1]
    for step in range(levels - 1):
        up = f"decoder.ups.{step}.conv"
        x = F.conv_transpose2d(x, weights[f"{up}.weight"], weights[f"{up}.bias"], stride=2)
        x = stage(f"decoder.levels.{step}", torch.cat((features[levels - 2 - step], x), dim=1))
    return F.conv2d(x, weights["decoder.output.conv.weight"], weights["decoder.output.conv.bias"])


def by_hand(model, image):
    """Both branches; a shared encoder is put before each decoder."""
    named = dict(model.named_parameters())
    branches = []
    for branch in ("semantic", "distance"):
        own = {name.removeprefix(f"{branch}."): p for name, p in named.items() if name.startswith(branch)}
        if "encoder" in names(model):
            own = {f"decoder.{name}": p for name, p in own.items()}
            own |= {name: p for name, p in named.items() if name.startswith("encoder")}
        branches.append(u_net_by_hand(own, image, levels=3))
    return torch.cat(branches, dim=1)


def test_output_and_gradients_are_those_of_the_layers_spelt_out(model):
    model = model.double().eval()
    image, weight = torch.randn(2, 3, 16, 24, dtype=torch.float64), torch.randn(2, 2, 16, 24, dtype=torch.float64)
    found, expected = model(image), by_hand(model, image)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), parameters),
        torch.autograd.grad((expected * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_default_widths_are_those_of_the_authors_networks():
    """Parameters and MACs as counted by hand: kernel x inputs x outputs per layer, times pixels."""
    widths = (16, 32, 64, 128, 256)

    def stage(level, inputs, outputs):
        return [(9, inputs, outputs, level), (9, outputs, outputs, level)]

    encoder = [layer for i, w in enumerate(widths) for layer in stage(i, (3, *widths)[i], w)]
    decoder = [(1, 16, 1, 0)]
    for i in range(4):
        decoder += [(4, widths[i + 1], widths[i], i + 1), *stage(i, 2 * widths[i], widths[i])]
    layers = {"two": 2 * encoder + 2 * decoder, "shared": encoder + 2 * decoder}
    for kind, spec in (("two", two_networks()), ("shared", shared_encoder())):
        model = spec.build()
        params = sum(kernel * inputs * outputs + outputs for kernel, inputs, outputs, _ in layers[kind])
        assert sum(p.numel() for p in model.parameters()) == params
    assert "3.9 M" in two_networks.__doc__
    assert "2.7 M" in shared_encoder.__doc__


def test_every_channel_but_the_outputs_can_leave(model):
    graph = sc.trace(model, torch.zeros(1, 3, 32, 32))
    assert [(pin.channels, pin.reason) for pin in graph.pinned] == [(1, "network output")] * 2
    # one group for each convolution, none of them tied: concatenation only shifts
    assert len(graph.groups) == sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in model.modules()) - 2


def test_half_of_every_group_leaves_with_proof(model):
    graph = sc.trace(model, torch.zeros(1, 3, 32, 32))
    small = sc.remove(model, graph, halved(model, graph))
    assert small(torch.rand(1, 3, 32, 32)).shape == (1, 2, 32, 32)
    assert sum(p.numel() for p in small.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())


def test_drop_out_lies_between_the_two_convolutions_of_a_level_and_nowhere_else(model):
    image = torch.rand(1, 3, 16, 16)
    assert not torch.equal(model.train()(image), model(image))
    assert torch.equal(model.eval()(image), model(image))
    levels = [m for m in model.modules() if isinstance(m, nn.Sequential) and hasattr(m[0], "conv")]
    for level in levels:
        kinds = [type(m) for m in level.modules() if not list(m.children())]
        assert kinds == [nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d, nn.ReLU]
    drops = sum(isinstance(m, nn.Dropout) for m in model.modules())
    assert drops == len(levels)


def test_activations_neither_fade_nor_grow_over_the_depth():
    torch.manual_seed(0)
    model = two_networks().build().eval()
    deepest = []
    model.semantic.encoder.register_forward_hook(lambda *call: deepest.append(call[-1]))
    with torch.no_grad():
        output = model(torch.randn(2, 3, 64, 64))
    spreads = [float(features.std()) for features in deepest[0]]
    assert all(0.3 < spread < 3 for spread in spreads)
    assert all(0.2 < spread < 5 for spread in output.std(dim=(0, 2, 3)).tolist())


def test_weights_are_drawn_anew_in_place():
    torch.manual_seed(0)
    model = two_networks((4, 8)).build()
    before = [p.clone() for p in model.parameters()]
    model.reset_parameters()
    assert [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)] == [
        p.ndim == 1 for p in model.parameters()
    ]


def test_a_pruned_shape_starts_from_scratch_as_the_network_itself_does():
    """The layers' own start has other spreads, and biases that are not zero."""
    model = two_networks((4, 8)).build()
    small = sc.remove(model, graph := sc.trace(model, torch.zeros(1, 3, 16, 16)), halved(model, graph))
    draw_anew_(small, seed=1)
    assert all(not p.any() for p in small.parameters() if p.ndim == 1)
    first = small.semantic.encoder.levels[1][1].conv.weight
    assert float(first.detach().std()) == pytest.approx((2 / (9 * first.shape[1])) ** 0.5, rel=0.25)


@pytest.mark.parametrize("network", [TwoNetworks, SharedEncoder])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (16,)}, r"widths \[16\] .* two levels or more"),
        ({"widths": (16, 0)}, r"widths \[16, 0\] .* 1 channel or more"),
        ({"dropout": 1.0}, r"dropout of 1.0 .* \[0, 1\)"),
    ],
)
def test_widths_and_drop_out_out_of_range_are_refused(network, arguments, message):
    with pytest.raises(InputError, match=message):
        network(**arguments)
