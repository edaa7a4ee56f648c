"""A network that keeps its float32 weights runs as its float64 copy does, and whoever shares them sees no change."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from masking import scramble_
from networks import ZOO, build
from secateur.prune.comparison import outputs
from secateur.prune.precision import InDoublePrecision, backward_in_double
from secateur.prune.slabs import convolve_in_slabs
from secateur.prune.trial import trace
from secateur.prune.twins import sharing_twin


def write_through_data(weight):
    weight.data.mul_(0.5)


def write_through_a_view(weight):
    weight.view(weight.shape[0], -1).div_(weight.flatten(1).norm(dim=1, keepdim=True))


def write_an_index(weight):
    weight[0] = 2.0


def write_a_slice_in_a_loop(weight):
    for row in weight:
        row.add_(row.mean())


def write_in_place(weight):
    weight.mul_(3.0).sub_(weight.mean())


def write_for_each(weight):
    torch._foreach_mul_([weight], 0.25)


def write_out(weight):
    torch.add(weight, 1.0, out=weight)


def write_other_data(weight):
    weight.data = weight * 2.0


def write_by_initialising(weight):
    nn.init.constant_(weight, 0.125)


def write_what_is_detached(weight):
    weight.detach().clamp_(-0.1, 0.1)


WRITES = [write for name, write in list(globals().items()) if name.startswith("write_")]


class SelfChanging(nn.Module):
    """Changes its own weight whenever it runs, and then uses it twice."""

    def __init__(self, write):
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
        self.write = write

    def forward(self, x):
        self.write(self.conv.weight)
        y = self.conv(x.to(self.conv.weight.dtype))
        return self.again(y) + self.conv.weight.sum(), self.conv.weight[0, 0].mean()


def double_copy_outputs(model, inputs):
    """The plain way: everything in float64."""
    twin = copy.deepcopy(model).double()
    with torch.no_grad():
        return {mode: twin.train(mode == "train")(*inputs) for mode in ("eval", "train")}


@pytest.mark.parametrize("write", WRITES)
def test_a_network_that_changes_itself_runs_as_its_double_copy(write):
    torch.manual_seed(0)
    model = SelfChanging(write)
    scramble_(model, seed=0)
    inputs = (torch.randn(2, 3, 5, 5, dtype=torch.float64),)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    versions = [parameter._version for parameter in model.parameters()]
    found = outputs(sharing_twin(model), inputs)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [parameter._version for parameter in model.parameters()] == versions
    assert all(parameter.dtype is torch.float32 for parameter in model.parameters())
    expected = double_copy_outputs(model, inputs)
    for mode in ("eval", "train"):
        for own, wanted in zip(found[mode], expected[mode], strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["basic_unet", "unet_batch_norm", "dyn_unet_deep", "attention", "window_attention"])
def test_shipped_networks_run_as_their_double_copies(name):
    model = build(name)
    scramble_(model, seed=0)
    inputs = tuple(tensor.double() for tensor in ZOO[name].inputs(batch=2))
    twin = sharing_twin(model)
    stored = {tensor.data_ptr() for tensor in model.parameters()}
    assert {tensor.data_ptr() for tensor in twin.parameters()} == stored
    with torch.no_grad(), InDoublePrecision(twin):
        own = twin.eval()(*inputs)
    with torch.no_grad():
        wanted = copy.deepcopy(model).double().eval()(*inputs)
    torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.double(), own)
    assert own.dtype is torch.float64
    assert not torch.equal(own.float(), model.eval()(*(tensor.float() for tensor in inputs)))  # other rounding


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": 2, "stride": 2},
        {"padding": 9},
        {"stride": 3, "dilation": 2, "padding": 2},
        {"groups": 2, "padding": 1},
        {"padding": "same"},
    ],
)
def test_slabs_are_the_whole(rank, options, monkeypatch):
    generator = torch.Generator().manual_seed(rank)
    sides = {1: (29,), 2: (19, 7), 3: (13, 6, 5)}[rank]
    x = torch.randn(2, 4, *sides, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 4 // options.get("groups", 1), *[3] * rank, generator=generator, dtype=torch.float64)
    bias = torch.randn(6, generator=generator, dtype=torch.float64)
    convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    wanted = convolution(x, weight, bias, **options)
    for size in (1, 5_000, 20_000, 2**23):
        monkeypatch.setattr("secateur.prune.slabs._SLAB_BYTES", size)
        calls = []

        def counted(*args, calls=calls, **kwargs):
            calls.append(args[0].shape)
            return convolution(*args, **kwargs)

        for own in (bias, None):
            torch.testing.assert_close(
                convolve_in_slabs(counted)(x, weight, own, **options),
                convolution(x, weight, own, **options),
                rtol=1e-12,
                atol=1e-12,
            )
        whole = "same" in options.values() or size == 2**23
        by_products = rank == 3 and options.get("stride", 1) == options.get("groups", 1) == 1
        assert len(calls) == 2 * (
            1 if whole else 0 if by_products else wanted.shape[2] if size == 1 else len(calls) // 2
        )
        assert whole or all(shape[2] < x.shape[2] for shape in calls) or size > 1
    assert torch.equal(convolve_in_slabs(convolution)(input=x, weight=weight, bias=bias, **options), wanted)


def test_other_precisions_are_not_divided(monkeypatch):
    monkeypatch.setattr("secateur.prune.slabs._SLAB_BYTES", 1)
    x, weight = torch.randn(1, 2, 9, 9), torch.randn(3, 2, 3, 3)
    calls = []
    convolve_in_slabs(lambda *args: calls.append(args) or F.conv2d(*args))(x, weight)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["unet_batch_norm", "dyn_unet", "attention", "perceptron"])
def test_gradients_are_those_of_the_double_copy(name):
    model = build(name)
    scramble_(model, seed=0)
    found = []
    for twin, mode in ((sharing_twin(model), backward_in_double), (copy.deepcopy(model).double(), None)):
        inputs = [tensor.double().requires_grad_() for tensor in ZOO[name].inputs(batch=2)]
        twin.eval().requires_grad_(False)
        with mode(twin) if mode else nullcontext():
            leaves = torch.utils._pytree.tree_leaves(twin(*inputs))
            sum(leaf.square().sum() for leaf in leaves).backward()
        found.append([tensor.grad for tensor in inputs])
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-11)
    assert all(bool(gradient.any()) for gradient in found[0])


def test_a_volume_with_other_numbers_along_each_axis(monkeypatch):
    monkeypatch.setattr("secateur.prune.slabs._SLAB_BYTES", 4_000)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 9, 8, 11, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 2, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    for dilation in ((2, 1, 3), (1, 3, 2), 2):
        wanted = F.conv3d(x, weight, bias, padding=(2, 0, 3), dilation=dilation)
        own = convolve_in_slabs(F.conv3d)(x, weight, bias, padding=(2, 0, 3), dilation=dilation)
        torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("write", WRITES)
def test_tracing_a_network_that_changes_itself_leaves_it_alone(write):
    model = SelfChanging(write)
    scramble_(model, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    held = [(id(parameter), parameter._version, parameter.data_ptr()) for parameter in model.parameters()]
    trace(model, torch.zeros(2, 3, 5, 5))
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [(id(parameter), parameter._version, parameter.data_ptr()) for parameter in model.parameters()] == held
