"""Operator by operator: what its rule says of the channels holds in a network that consists of it.

Operators of one kind share a network: each is applied to the same features, and the results are added, so that one
wrong rule pins or breaks all of it.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from masking import assert_same_outputs, halving, scramble_, silenced
from networks import TOYS, build
from secateur.graph import walk
from secateur.graph.rules import RULES
from secateur.graph.trace import trace_channels
from secateur.prune.surgery import remove
from secateur.prune.trial import trace

ATEN = torch.ops.aten
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIDE, WIDTH = 8, 6

# name of the operator -> what is done to features (N, 6, 8, ...) with it; the result is as wide, or broadcasts
ACTIVATIONS = {
    "celu": F.celu,
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "log_sigmoid": F.logsigmoid,
    "relu6": F.relu6,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.2, training=False),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, 0.2, training=False),
}
FUNCTIONS = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_max": lambda x: x.clamp_max(0.5),
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": lambda x: torch.exp(-x.abs()),
    "expm1": lambda x: torch.expm1(-x.abs()),
    "floor": torch.floor,
    "fmod": lambda x: torch.fmod(x, 0.7),
    "frac": torch.frac,
    "log": lambda x: torch.log(x.abs() + 1),
    "log1p": lambda x: torch.log1p(x.abs()),
    "nan_to_num": torch.nan_to_num,
    "neg": torch.neg,
    "pow": lambda x: x.pow(2),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "remainder": lambda x: torch.remainder(x, 0.7),
    "round": torch.round,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "sign": torch.sign,
    "sin": torch.sin,
    "sqrt": lambda x: torch.sqrt(x.abs() + 1),
    "square": torch.square,
    "tan": lambda x: torch.tan(x.tanh()),
    "trunc": torch.trunc,
    "isfinite": lambda x: torch.isfinite(x).to(x),
    "isinf": lambda x: torch.isinf(x).to(x),
    "isnan": lambda x: torch.isnan(x).to(x),
}
PAIRS = {
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1),
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "atan2": lambda x: torch.atan2(x, x.abs() + 1),
    "lerp": lambda x: torch.lerp(x, x.abs(), 0.3),
    "maximum": lambda x: torch.maximum(x, -x),
    "minimum": lambda x: torch.minimum(x, -x),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked_fill": lambda x: x.masked_fill(x > 0.5, 0.5),
    "copy": lambda x: x.clone().copy_(x.abs()),
    "fill": lambda x: x + torch.ones_like(x).fill_(2.0),
    "zero": lambda x: x + torch.ones_like(x).zero_(),
    "floor_divide": lambda x: torch.floor_divide(x, 0.3),
    "divide": lambda x: torch.divide(x, 3),
    "true_divide": lambda x: torch.true_divide(x, 3),
    "multiply": lambda x: torch.multiply(x, x),
    "subtract": lambda x: torch.subtract(x, x.abs()),
    "rsub": lambda x: torch.rsub(x, x.abs()),
}
COMPARISONS = {
    "eq": lambda x: (x == x.abs()).to(x),
    "ne": lambda x: (x != x.abs()).to(x),
    "lt": lambda x: (x < 0.3).to(x),
    "le": lambda x: (x <= 0.3).to(x),
    "gt": lambda x: (x > 0.3).to(x),
    "ge": lambda x: (x >= 0.3).to(x),
    "logical_and": lambda x: torch.logical_and(x > 0, x < 1).to(x),
    "logical_or": lambda x: torch.logical_or(x > 1, x < 0).to(x),
    "logical_not": lambda x: torch.logical_not(x > 0).to(x),
    "logical_xor": lambda x: torch.logical_xor(x > 0, x < 1).to(x),
    "bitwise_and": lambda x: torch.bitwise_and(x > 0, x < 1).to(x),
    "__and_": lambda x: ((x > 0) & (x < 1)).to(x),
    "__or_": lambda x: ((x > 1) | (x < 0)).to(x),
    "__xor_": lambda x: ((x > 0) ^ (x < 1)).to(x),
    "bitwise_or": lambda x: torch.bitwise_or(x > 1, x < 0).to(x),
    "bitwise_not": lambda x: (~(x > 0)).to(x),
    "bitwise_xor": lambda x: torch.bitwise_xor(x > 0, x < 1).to(x),
    "type_as": lambda x: (x > 0).type_as(x),
}
RENAMED = {
    "alias": lambda x: ATEN.alias(x),
    "clone": torch.clone,
    "detach": lambda x: x.detach(),
    "lift_fresh_copy": lambda x: ATEN.lift_fresh_copy(x),
    "_to_copy": lambda x: ATEN._to_copy(x, dtype=x.dtype),
    "to": lambda x: x.to(torch.float64).to(x.dtype),
}
CREATED = {
    "arange": lambda x: x + torch.arange(SIDE, device=x.device),
    "eye": lambda x: x + torch.eye(SIDE, device=x.device),
    "empty": lambda x: x + torch.empty(SIDE).fill_(0.5),
    "empty_like": lambda x: x + torch.empty_like(x).zero_(),
    "full": lambda x: x + torch.full((SIDE,), 0.5),
    "full_like": lambda x: x + torch.full_like(x, 0.5),
    "linspace": lambda x: x + torch.linspace(0, 1, SIDE),
    "meshgrid": lambda x: x + torch.meshgrid(torch.ones(SIDE), torch.ones(SIDE), indexing="ij")[0],
    "new_empty": lambda x: x + x.new_empty(SIDE).fill_(0.5),
    "new_full": lambda x: x + x.new_full((SIDE,), 0.5),
    "new_ones": lambda x: x + x.new_ones(SIDE),
    "new_zeros": lambda x: x + x.new_zeros(SIDE),
    "ones": lambda x: x + torch.ones(SIDE),
    "ones_like": lambda x: x + torch.ones_like(x),
    "zeros": lambda x: x + torch.zeros(SIDE),
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "scalar_tensor": lambda x: x + ATEN.scalar_tensor(0.5),
    "rand": lambda x: x + torch.rand(SIDE),
    "randn": lambda x: x + torch.randn(SIDE),
    "randint": lambda x: x + torch.randint(0, 3, (SIDE,)),
    "randperm": lambda x: x + torch.randperm(SIDE),
}
VIEWS = {  # a softmax over positions would pin channels that were taken for them
    "reshape_as": lambda x: x.flatten(2).reshape_as(x),
    "_unsafe_view": lambda x: ATEN._unsafe_view(x, list(x.shape)),
    "expand": lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, SIDE, SIDE),
    "expand_as": lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
    "broadcast_to": lambda x: x[:, :, :1].broadcast_to(x.shape),
    "broadcast_tensors": lambda x: sum(torch.broadcast_tensors(x[:, :, :1], x, x[:1])),
    "tile": lambda x: x[..., :4].tile(2),
    "swapaxes": lambda x: x.swapaxes(1, 2).softmax(1).swapaxes(1, 2),
    "swapdims": lambda x: x.swapdims(1, 3).softmax(1).swapdims(3, 1),
    "moveaxis": lambda x: x.moveaxis(1, -1).softmax(1).moveaxis(-1, 1),
    "t": lambda x: x.flatten(2)[0].t().softmax(0).t().view_as(x[:1]),
    "numpy_T": lambda x: x.flatten(2)[0].T.softmax(0).T.view_as(x[:1]),
    "narrow": lambda x: x.narrow(2, 3, 1),
    "split": lambda x: torch.cat(x.split(4, 3)[::-1], 3),
    "tensor_split": lambda x: torch.cat(x.tensor_split(2, 2), 2),
    "split_with_sizes": lambda x: torch.cat(x.split([3, 5], 3), 3),
    "concat": lambda x: torch.concat([x, -x], 2)[:, :, 4:12],
    "index_select": lambda x: x.index_select(3, torch.arange(7, -1, -1, device=x.device)),
    "constant_pad_nd": lambda x: ATEN.constant_pad_nd(x, [1, 1, 1, 1], 0.5)[..., 2:, :-2],
}
REDUCTIONS = {
    "amin": lambda x: x.amin((2, 3), keepdim=True),
    "all": lambda x: (x > -9).all(3, keepdim=True).to(x),
    "any": lambda x: (x > 0).any(3, keepdim=True).to(x),
    "max": lambda x: x.max(3, keepdim=True)[0],
    "min": lambda x: x.min(3, keepdim=True).values,
    "median": lambda x: x.median(3, keepdim=True).values,
    "nansum": lambda x: x.nansum(3, keepdim=True),
    "norm": lambda x: ATEN.norm(x, 2, [3], True),
    "prod": lambda x: x.tanh().prod(3, keepdim=True),
    "std": lambda x: x.std((2, 3), keepdim=True),
    "var": lambda x: x.var((2, 3), keepdim=True),
    "logsumexp": lambda x: x.logsumexp(3, keepdim=True),
    "argmin": lambda x: x.argmin(3, keepdim=True).to(x),
    "log_softmax": lambda x: F.log_softmax(x, 3),
    "_softmax": lambda x: ATEN._softmax(x, 3, False),
    "_log_softmax": lambda x: ATEN._log_softmax(x, 3, False),
    "cumsum": lambda x: x.cumsum(3),
    "cumprod": lambda x: x.tanh().cumprod(3),
    "sort": lambda x: x.sort(3)[0],
    "argsort": lambda x: x.argsort(3).to(x),
}
IN_2D = {
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 1),
    "upsample_bicubic2d": lambda x: _resized(x, "bicubic"),
    "upsample_bilinear2d": lambda x: _resized(x, "bilinear"),
    "_upsample_nearest_exact2d": lambda x: _resized(x, "nearest-exact"),
    "_upsample_bilinear2d_aa": lambda x: F.interpolate(x[..., :4, :4], SIDE, mode="bilinear", antialias=True),
    "_upsample_bicubic2d_aa": lambda x: F.interpolate(x[..., :4, :4], SIDE, mode="bicubic", antialias=True),
    "max_pool2d_with_indices": lambda x: F.max_pool2d(x, 3, 1, 1, return_indices=True)[0],
    "reflection_pad2d": lambda x: ATEN.reflection_pad2d(x, [2] * 4)[..., 4:, 4:],
    "replication_pad2d": lambda x: ATEN.replication_pad2d(x, [2] * 4)[..., 4:, 4:],
    "grid_sampler": lambda x: F.grid_sample(x, _shrunk(x), align_corners=False),
    "grid_sampler_2d": lambda x: ATEN.grid_sampler_2d(x, _shrunk(x), 0, 0, False),
    "pad": lambda x: F.pad(x, (2,) * 4, "circular")[..., 4:, 4:],
}
IN_1D = {
    "max_pool1d": lambda x: F.max_pool1d(x, 3, 1, 1),
    "avg_pool1d": lambda x: F.avg_pool1d(x, 3, 1, 1),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 1),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 1),
    "max_pool1d_with_indices": lambda x: F.max_pool1d(x, 3, 1, 1, return_indices=True)[0],
    "upsample_nearest1d": lambda x: _resized(x, "nearest"),
    "upsample_linear1d": lambda x: _resized(x, "linear"),
    "_upsample_nearest_exact1d": lambda x: _resized(x, "nearest-exact"),
    "reflection_pad1d": lambda x: ATEN.reflection_pad1d(x, [2] * 2)[..., 4:],
    "replication_pad1d": lambda x: ATEN.replication_pad1d(x, [2] * 2)[..., 4:],
}
IN_3D = {
    "grid_sampler_3d": lambda x: ATEN.grid_sampler_3d(x, _shrunk(x), 0, 0, False),
    "max_pool3d": lambda x: F.max_pool3d(x, 3, 1, 1),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x, 1),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x, 1),
    "max_pool3d_with_indices": lambda x: F.max_pool3d(x, 3, 1, 1, return_indices=True)[0],
    "upsample_nearest3d": lambda x: _resized(x, "nearest"),
    "upsample_trilinear3d": lambda x: _resized(x, "trilinear"),
    "_upsample_nearest_exact3d": lambda x: _resized(x, "nearest-exact"),
    "reflection_pad3d": lambda x: ATEN.reflection_pad3d(x, [2] * 6)[..., 4:, 4:, 4:],
    "replication_pad3d": lambda x: ATEN.replication_pad3d(x, [2] * 6)[..., 4:, 4:, 4:],
}


def _shrunk(x):
    """A sampling grid of its own for every sample."""
    dims = x.ndim - 2
    return F.affine_grid(0.7 * torch.eye(dims, dims + 1).to(x).expand(len(x), -1, -1), x.shape, align_corners=False)


def _resized(x, mode):
    small = x[(..., *[slice(0, 4)] * (x.ndim - 2))]
    return F.interpolate(small, scale_factor=2.0, mode=mode)


CHAINS = {  # name -> (dimensions, operators)
    "activations": (2, ACTIVATIONS), "functions": (2, FUNCTIONS), "pairs": (2, PAIRS), "comparisons": (2, COMPARISONS),
    "renamed": (2, RENAMED), "created": (2, CREATED), "views": (2, VIEWS), "reductions": (2, REDUCTIONS),
    "1d": (1, IN_1D), "2d": (2, IN_2D), "3d": (3, IN_3D),
}  # fmt: skip


class Chain(nn.Module):
    """A convolution to six channels, the sum of what the operators make of them, and one that reads it."""

    def __init__(self, dims, functions):
        super().__init__()
        self.first, self.last = CONV[dims](3, WIDTH, 1), CONV[dims](WIDTH, 1, 1)
        self.functions = tuple(functions)

    def forward(self, x):
        x = self.first(x)
        result = x
        for function in self.functions:
            result = result + function(x)
        return self.last(result)


@pytest.fixture
def met(monkeypatch):
    """The names of the operators that a walk meets."""
    names, right = set(), walk.Walk._apply

    def noting(self, call):
        names.add(call.operator)
        return right(self, call)

    monkeypatch.setattr(walk.Walk, "_apply", noting)
    return names


def assert_exact(model, inputs, units, pins=frozenset()):
    """The groups of ``units`` are free, nothing but the output and ``pins`` is pinned, what is ignored can go."""
    scramble_(model, seed=0)
    graph = trace(model, inputs)
    assert {group.id: group.width for group in graph.groups} == units, graph.pinned
    assert {pin.reason.partition(" (")[0] for pin in graph.pinned} == {"network output", *pins}
    plan = halving(graph)
    assert_same_outputs(silenced(model, graph, plan), remove(model, graph, plan), inputs)


@pytest.mark.parametrize("name", CHAINS)
def test_channels_pass(name, met):
    dims, functions = CHAINS[name]
    inputs = (torch.randn(1, 3, *[SIDE] * dims, generator=torch.Generator().manual_seed(0)),)
    assert_exact(Chain(dims, functions.values()), inputs, {"first": WIDTH})
    assert functions.keys() <= met


class Layers(nn.Module):
    """Down and up again, in any number of dimensions."""

    def __init__(self, dims):
        super().__init__()
        self.first, self.down = CONV[dims](3, WIDTH, 3, padding=1), CONV[dims](WIDTH, 4, 3, stride=2, padding=1)
        self.norm, self.up = NORM[dims](4), TRANSPOSED[dims](4, 5, 2, stride=2)
        self.depthwise, self.last = CONV[dims](11, 22, 1, groups=11), CONV[dims](22, 1, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.depthwise(torch.cat([self.up(F.relu(self.norm(self.down(F.relu(x))))), x], 1)))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layers_in_any_number_of_dimensions(dims, met):
    inputs = (torch.randn(1, 3, *[SIDE] * dims, generator=torch.Generator().manual_seed(0)),)
    assert_exact(Layers(dims), inputs, {"first": WIDTH, "down": 4, "up": 5})
    assert {f"conv{dims}d", f"conv_transpose{dims}d", "batch_norm"} <= met & IN_LAYERS


class Tokens(nn.Module):
    """Products of one sample's tokens with a free weight, positions from a table, attention of a single head."""

    def __init__(self):
        super().__init__()
        self.first, self.positions = nn.Conv2d(3, WIDTH, 1), nn.Embedding(SIDE * SIDE, WIDTH)
        self.wide, self.narrow = nn.Parameter(torch.randn(WIDTH, 8)), nn.Linear(8, 1)

    def forward(self, x):
        tokens = self.first(x).flatten(2).transpose(1, 2) + self.positions(torch.arange(SIDE * SIDE))
        hidden = torch.stack([torch.mm(sample, self.wide) for sample in tokens.unbind(0)])
        scores = torch.baddbmm(hidden.new_zeros(len(x), 1, 1), hidden, hidden.transpose(1, 2), beta=0, alpha=0.1)
        return self.narrow(torch.bmm(scores.softmax(-1), hidden)).transpose(1, 2)


def test_products_and_tables(met):
    inputs = (torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),)
    assert_exact(Tokens(), inputs, {"first": WIDTH}, {"baddbmm mixes all channels"})
    assert met >= IN_PRODUCTS


class ShuffledBlocks(nn.Module):
    """Three blocks of two channels take turns, by torch's own operator."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 1, 1)

    def forward(self, x):
        return self.last(F.channel_shuffle(F.relu(self.first(x)), 3))


def test_a_shuffle_loses_one_index_of_every_block(met):
    inputs = (torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),)
    assert_exact(ShuffledBlocks(), inputs, {"first": 2})
    assert "channel_shuffle" in met


class Copies(nn.Module):
    """Every channel twice, by the three operators for that, each read by a layer of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.reads = nn.Conv2d(3, WIDTH, 1), nn.ModuleList(nn.Conv2d(2 * WIDTH, 1, 1) for _ in range(3))

    def forward(self, x):
        x = F.relu(self.first(x))
        copies = (x.tile(2, 1, 1), x.repeat(1, 2, 1, 1), x.repeat_interleave(2, dim=1))
        return sum(read(copied) for read, copied in zip(self.reads, copies, strict=True))


def test_copies_of_channels_leave_with_them(met):
    inputs = (torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),)
    assert_exact(Copies(), inputs, {"first": WIDTH})
    assert met >= {"tile", "repeat", "repeat_interleave"}


PINNING = {  # what is drawn per element depends on the width; others have no rule, or none for this form
    "rrelu": (lambda x: F.rrelu(x, training=True), "proof failed"),
    "rand_like": (lambda x: x * torch.rand_like(x), "proof failed"),
    "randn_like": (lambda x: x + torch.randn_like(x), "proof failed"),
    "randint_like": (lambda x: x + torch.randint_like(x, 3), "proof failed"),
    "bernoulli": (lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)), "proof failed"),
    "native_dropout": (lambda x: torch.native_dropout(x, 0.5, True)[0], "operator native_dropout has no rule"),
    "addmm": (
        lambda x: torch.addmm(x.flatten(2)[0], x.flatten(2)[0], torch.eye(SIDE * SIDE)).view_as(x[:1]), "operator addmm"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PINNING)
def test_what_cannot_be_removed_exactly_is_pinned(name, met):
    function, reason = PINNING[name]
    graph = trace(Chain(2, [function]), torch.randn(1, 3, SIDE, SIDE))
    assert graph.groups == ()
    assert any(reason in pin.reason for pin in graph.pinned if pin.module == "first"), graph.pinned
    assert name in met


IN_LAYERS = {"batch_norm", *(f"{kind}{dims}d" for kind in ("conv", "conv_transpose") for dims in CONV)}
IN_PRODUCTS = {"mm", "embedding", "baddbmm", "bmm", "unbind", "stack", "softmax"}
IN_TOYS = {
    "_weight_norm", "adaptive_avg_pool2d", "add", "amax", "argmax", "avg_pool3d", "cat", "chunk", "contiguous", "div",
    "dropout", "einsum", "elu", "feature_dropout", "flatten", "flip", "gelu", "glu", "group_norm", "hardswish", "index",
    "instance_norm", "layer_norm", "leaky_relu", "linalg_vector_norm", "linear", "matmul", "max_pool2d", "mean", "mish",
    "movedim", "mul", "permute", "pixel_shuffle", "pixel_unshuffle", "prelu", "relu", "repeat", "repeat_interleave",
    "reshape", "roll", "scaled_dot_product_attention", "select", "selu", "sigmoid", "silu", "slice", "softplus",
    "squeeze", "sub", "sum", "tanh", "transpose", "unflatten", "unsqueeze", "upsample_nearest2d", "view", "view_as",
}  # fmt: skip
WITHOUT_CHANNELS = {"_assert_async", "_assert_tensor_metadata", "requires_grad", "sym_size"}  # they make no tensor


def test_every_rule_is_met_in_a_network():
    here = {name for _, functions in CHAINS.values() for name in functions} | {"channel_shuffle"}
    tested = here | IN_LAYERS | IN_PRODUCTS | IN_TOYS
    assert RULES.keys() == tested | (PINNING.keys() & RULES.keys()) | WITHOUT_CHANNELS


@pytest.mark.slow
def test_the_toys_hold_what_is_not_here(met):
    for name, toy in TOYS.items():
        trace_channels(build(name), toy.inputs())
    assert met >= IN_TOYS
