"""Dead filters leave exactly: borders, norms, activations, skips, carriers, and planted faults."""

import copy
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from masking import outputs, scramble_
from networks import TOYS, traced
from secateur.errors import InputError, PlanMismatchError, ProofError
from secateur.graph.records import Role
from secateur.prune import compaction, constants
from secateur.prune.compaction import compact
from secateur.prune.trial import trace
from test_prune_proof import Magnifying

ODD = (19, 22)


def conv(c_in, c_out, kernel=3, **options):
    return nn.Conv2d(c_in, c_out, kernel, **{"padding": kernel // 2, **options})


def kill_(layer, filters):
    """All weights of these filters are zero; biases stay."""
    with torch.no_grad():
        rows = layer.weight if not getattr(layer, "transposed", False) else layer.weight.transpose(0, 1)
        rows[list(filters)] = 0


def chain(*middle, last=None, dead=(0, 2, 3), width=6):
    """Three channels to ``width`` by a padded convolution with dead filters, ``middle``, and on to two."""
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, width), *middle, last or conv(width, 2, 1)).double()
    scramble_(model, seed=1)
    with torch.no_grad():
        model[0].bias.abs_().add_(0.1)
    kill_(model[0], dead)
    return model


def compacted(model, shape=(1, 3, 16, 16)):
    graph = trace(model, torch.zeros(shape, dtype=torch.float64))
    return (*compact(model, graph), graph)


def assert_same(model, small, *, training=False, sides=ODD, channels=3):
    for seed, shape in enumerate(((2, channels, *sides), (1, channels, *[24] * len(sides)))):
        inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)]
        before = outputs(model, inputs, training=training)
        assert before
        torch.testing.assert_close(outputs(small, inputs, training=training), before, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("activation", "last"),
    [
        (nn.ReLU(), conv(6, 2, 1)),
        (nn.LeakyReLU(0.2), conv(6, 2, 3, padding=0)),
        (nn.PReLU(6), conv(6, 2, 3, padding_mode="reflect")),
        (nn.Hardswish(), conv(6, 2, 3, padding="valid", dilation=2)),
        (nn.Softplus(), nn.ConvTranspose2d(6, 2, 1)),
    ],
    ids=["pointwise", "valid", "reflected", "dilated", "transposed"],
)
def test_a_bias_takes_all_constants_where_no_zero_padding_is_seen(activation, last):
    model = chain(copy.deepcopy(activation), last=copy.deepcopy(last))
    small, done, _ = compacted(model)
    assert small[0].out_channels == 3
    assert (done.dead, done.left, done.stays) == (3, 3, ())
    assert [fold.bias for fold in done.folds] == [f"{len(model) - 1}.bias"]
    assert_same(model, small)
    assert_same(model, small, training=True)
    assert done.exact_in_train


@pytest.mark.parametrize(
    ("activation", "last"),
    [
        (nn.ReLU(), conv(6, 2, 3)),
        (nn.LeakyReLU(0.2), conv(6, 2, 3, padding="same")),
        (nn.PReLU(6), conv(6, 2, 5, padding=4, dilation=2, stride=2)),
        (nn.Sigmoid(), nn.ConvTranspose2d(6, 2, 2, stride=2)),
        (nn.GELU(), nn.ConvTranspose2d(6, 2, 3, stride=2, padding=1, output_padding=1)),
        (nn.Hardswish(), nn.ConvTranspose2d(6, 2, 2)),
        (nn.Softplus(), conv(6, 2, 1, bias=False)),
        (nn.ELU(), conv(6, 2, 1, padding=1)),
    ],
    ids=["padded", "same", "strided", "up", "up_padded", "up_overlapping", "no_bias", "padded_pointwise"],
)
def test_one_carrier_takes_all_constants_elsewhere(activation, last):
    model = chain(copy.deepcopy(activation), last=copy.deepcopy(last))
    small, done, _ = compacted(model)
    assert small[0].out_channels == 4
    assert (done.dead, done.left) == (3, 2)
    ((fold, stay),) = zip(done.folds, done.stays, strict=True)
    assert (fold.bias, fold.channels, fold.carriers) == (None, 2, (stay.unit,))
    assert "carries" in stay.reason
    assert_same(model, small)
    assert_same(model, small, training=True)


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.InstanceNorm2d(6)], ids=["negative", "normalised"])
def test_constants_of_zero_need_no_carrier(middle):
    """Also those that are zero but for rounding: of many equal numbers the mean is another one."""
    model = chain(middle, last=conv(6, 2, 3))
    with torch.no_grad():
        model[0].bias.copy_(-torch.rand(6, generator=torch.Generator().manual_seed(0)) - 0.1)
    small, done, _ = compacted(model)
    assert small[0].out_channels == 3
    assert done.folds == ()
    assert_same(model, small)


def test_constants_that_are_not_heard_need_no_carrier():
    model = chain(nn.Softplus(), last=conv(6, 2, 3), dead=(0, 2))
    with torch.no_grad():
        model[2].weight[:, [0, 2]] = 0
    small, done, _ = compacted(model)
    assert small[0].out_channels == 4
    assert done.folds == ()
    assert_same(model, small)
    assert_same(model, small, training=True)


class FixedKernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = conv(3, 6), conv(4, 2, 1)
        self.register_buffer("kernel", torch.randn(4, 6, 3, 3))

    def forward(self, x):
        return self.last(F.conv2d(F.softplus(self.first(x)), self.kernel, padding=1))


def test_a_kernel_that_is_a_buffer_takes_constants():
    torch.manual_seed(0)
    model = FixedKernel().double()
    kill_(model.first, (0, 4))
    small, done, _ = compacted(model)
    assert [(fold.reader, fold.bias) for fold in done.folds] == [("kernel", None)]
    assert small.first.out_channels == 5
    assert_same(model, small)


@pytest.mark.parametrize(
    ("norm", "exact_in_train"),
    [(nn.BatchNorm2d(6), False), (nn.InstanceNorm2d(6, affine=True), True), (nn.GroupNorm(6, 6), True)],
    ids=["batch", "instance", "group"],
)
def test_norms_make_another_constant(norm, exact_in_train):
    model = chain(copy.deepcopy(norm), nn.LeakyReLU(), last=conv(6, 2, 3))
    small, done, _ = compacted(model)
    assert small[0].out_channels == 4
    assert_same(model, small)
    assert done.exact_in_train is exact_in_train
    if exact_in_train:
        assert_same(model, small, training=True)
    else:
        with pytest.raises(AssertionError):
            assert_same(model, small, training=True)


def test_volumes():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.InstanceNorm3d(6, affine=True), nn.ReLU(), nn.Conv3d(6, 4, 3, padding=1),
        nn.LeakyReLU(), nn.ConvTranspose3d(4, 2, 2, stride=2),
    ).double()  # fmt: skip
    scramble_(model, seed=1)
    kill_(model[0], (1, 2, 5))
    kill_(model[3], (0, 1))
    small, done, _ = compacted(model, (1, 1, 16, 16, 16))
    assert (small[0].out_channels, small[3].out_channels, done.left) == (4, 3, 3)
    assert_same(model, small, sides=(9, 10, 11), channels=1)


@pytest.mark.parametrize("groups", [2, 3])
def test_every_convolution_group_has_its_carriers(groups):
    model = chain(nn.Softplus(), last=nn.Conv2d(12, 6, 3, padding=1, groups=groups), width=12, dead=())
    width = 12 // groups
    kill_(model[0], [g * width + k for g in range(groups) for k in (0, 1)])  # two units: index 0, 1 of every group
    small, done, _ = compacted(model)
    assert (done.dead, done.left) == (2, 1)
    assert len(done.folds[0].carriers) == groups
    assert_same(model, small)


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = conv(3, 6), conv(6, 6), conv(6, 2, 1)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.last(F.leaky_relu(x + self.second(x)))


def test_a_unit_that_another_writer_feeds_stays():
    torch.manual_seed(0)
    model = Skip().double()
    scramble_(model, seed=1)
    kill_(model.second, (0, 1))
    small, done, _ = compacted(model)
    assert (done.dead, done.left) == (2, 0)
    assert {stay.unit for stay in done.stays} == {0, 1}
    assert all("sees it change with the input" in stay.reason for stay in done.stays)
    kill_(model.first, (1, 4))
    with torch.no_grad():
        model.first.bias[1] = -1  # of which the second convolution, with its padding, reads zero
    small, done, _ = compacted(model)
    assert (done.dead, done.left) == (3, 1)
    assert {stay.unit: stay.reason.split()[0] for stay in done.stays} == {0: "second.weight", 4: "last.weight"}
    assert_same(model, small)


class Attention(nn.Module):
    """Constant channels times a map are no constants."""

    def __init__(self):
        super().__init__()
        self.first, self.map, self.last = conv(3, 6), conv(3, 1), conv(6, 2, 1)

    def forward(self, x):
        return self.last(self.first(x) * torch.sigmoid(self.map(x)))


class PadsOddSides(nn.Module):
    """Zeros at the border before an activation, at odd sides only."""

    def __init__(self):
        super().__init__()
        self.first, self.last = conv(3, 6, 2, padding=0, stride=2), conv(6, 2, 1)

    def forward(self, x):
        low = self.first(x)
        return self.last(torch.sigmoid(F.pad(low, (0, x.shape[-1] % 2, 0, 0))))


class AsksForValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = conv(3, 6), conv(6, 2, 1)

    def forward(self, x):
        y = self.first(x)
        return self.last(F.relu(y) if x.mean() > 0 else y)


class DividesByTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = conv(3, 6), conv(6, 2, 1)

    def forward(self, x):
        return self.last(self.first(x).relu() / x.shape[0])


class CountsPixels(DividesByTheBatch):
    def forward(self, x):
        return self.last(self.first(x).relu() * ((x > 0).nonzero().shape[0] / 100))


@pytest.mark.parametrize("kind", [Attention, PadsOddSides, AsksForValues, DividesByTheBatch, CountsPixels])
def test_what_is_constant_by_chance_or_here_only_stays(kind):
    torch.manual_seed(0)
    model = kind().double()
    scramble_(model, seed=1)
    kill_(model.first, (0, 1))
    with torch.no_grad():
        model.first.bias.abs_()
    small, done, _ = compacted(model)
    assert (done.dead, done.left, len(done.stays)) == (2, 0, 2)
    assert_same(model, small)


class TwoReaders(nn.Module):
    """One group is read by itself and together with another: its carrier serves both consumers."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = conv(3, 6), conv(6, 6), conv(12, 2)

    def forward(self, x):
        one = F.softplus(self.one(x))
        two = F.softplus(self.two(one))
        return self.last(torch.cat([one, two], 1))


def test_readers_share_carriers():
    torch.manual_seed(0)
    model = TwoReaders().double()
    scramble_(model, seed=1)
    kill_(model.one, (0, 1, 2))
    kill_(model.two, (3, 4, 5))
    with torch.no_grad():
        model.two.bias += 1  # louder, so that it would be the first choice of the consumer of both
    small, done, _ = compacted(model)
    assert (small.one.out_channels, small.two.out_channels) == (4, 3)
    assert [len(fold.carriers) for fold in done.folds] == [1, 1]
    assert_same(model, small)


class DeepSupervision(nn.Module):
    """A head that only train mode reaches."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.head = conv(3, 6), conv(6, 2, 1), conv(6, 2, 1)

    def forward(self, x):
        x = F.gelu(self.first(x))
        return [self.last(x), self.head(x)] if self.training else self.last(x)


def test_heads_of_training_take_constants_too():
    torch.manual_seed(0)
    model = DeepSupervision().double()
    scramble_(model, seed=1)
    kill_(model.first, (0, 4))
    small, done, _ = compacted(model)
    assert (done.left, {fold.bias for fold in done.folds}) == (2, {"last.bias", "head.bias"})
    assert_same(model, small)
    assert_same(model, small, training=True)


def test_death_spreads_forwards_and_backwards():
    """A filter that reads dead channels only is dead too, and so is one that only filters without readers read."""
    model = chain(
        nn.Softplus(), conv(6, 6, 1), nn.Softplus(), conv(6, 6, 3), nn.Softplus(), last=conv(6, 2, 1), dead=(0, 2)
    )
    with torch.no_grad():
        model[2].weight[0, [1, 3, 4, 5]] = 0  # reads 0 and 2 alone
        model[6].weight[:, 5] = 0  # nobody hears 5,
        model[4].weight[:5, 4] = 0  # which alone hears 4,
        model[2].weight[[0, 1, 2, 3, 5], 1] = 0  # which alone hears 1
    small, done, _ = compacted(model)
    widths = [small[i].out_channels for i in (0, 2, 4)]
    assert widths == [3, 5, 5]  # 0, 1, 2; then 4, while 0 carries nobody's constant but its own; then 5
    assert (done.dead, done.left) == (2, 5)
    assert_same(model, small)


def test_a_group_keeps_one_unit():
    model = chain(nn.ReLU(), dead=range(6))
    small, done, _ = compacted(model)
    assert small[0].out_channels == 1
    assert [stay.reason for stay in done.stays] == ["no group is emptied"]
    assert_same(model, small)


def test_what_stays_goes_on_listening():
    """A carrier in the second layer is made of constants of the first, which need a carrier there in turn."""
    model = chain(nn.Softplus(), conv(6, 4, 1, bias=False), nn.Softplus(), last=conv(4, 2, 3), dead=(1, 2))
    with torch.no_grad():
        model[2].weight[0, [1, 2]] = 0
        model[2].weight[1:, [0, 3, 4, 5]] = 0
    small, done, _ = compacted(model)
    assert (small[0].out_channels, small[2].out_channels) == (5, 2)
    assert [stay.reason for stay in done.stays] == ["it carries the constants that 2.weight reads"]
    assert_same(model, small)


def test_a_bias_that_others_add_too_takes_nothing():
    model = chain(nn.ReLU(), last=nn.Sequential(conv(6, 6, 1), nn.ReLU(), conv(6, 6, 1), nn.ReLU(), conv(6, 2, 1)))
    model[2][2].bias = model[2][0].bias
    small, done, _ = compacted(model)
    assert small[0].out_channels == 4
    assert done.folds[0].bias is None
    assert_same(model, small)


class BiasTwice(nn.Module):
    """What a layer adds is added by hand, or by a norm, too."""

    def __init__(self, normed):
        super().__init__()
        self.first, self.second, self.last = conv(3, 8), conv(8, 8, 1), conv(8, 1, 1)
        self.norm = nn.InstanceNorm2d(8, affine=True) if normed else None
        if normed:
            self.norm.bias = self.second.bias

    def forward(self, x):
        y = self.second(self.first(x).relu())
        return self.last(self.norm(y) if self.norm else y + self.second.bias[:, None, None]).relu()


@pytest.mark.parametrize("normed", [False, True])
def test_a_bias_that_is_used_elsewhere_takes_nothing(normed):
    model = BiasTwice(normed).double()
    scramble_(model, seed=1)
    with torch.no_grad():
        model.first.bias.abs_().add_(0.1)
    kill_(model.first, range(4))
    small, done, _ = compacted(model)
    assert small.first.out_channels == 5
    assert done.folds[0].bias is None
    assert_same(model, small)


@pytest.mark.parametrize("bias", [-24.0, -26.0])
def test_what_is_next_to_nothing_is_heard_by_a_loud_reader(bias):
    model = chain(nn.Sigmoid(), last=conv(6, 2, 3))
    with torch.no_grad():
        model[0].bias[[0, 2, 3]] = bias
        model[2].weight[:, [0, 2, 3]] *= 1e6
    small, _, _ = compacted(model)
    assert small[0].out_channels == 4
    assert_same(model, small)


def test_a_network_that_magnifies_rounding_is_compacted():
    torch.manual_seed(0)
    model = Magnifying(30).double()
    kill_(model.first, range(350))
    kill_(model.second, range(350))
    small, done, _ = compacted(model, (1, 3, 8, 8))
    assert small.first.out_channels == small.second.out_channels == 350
    assert 1e-9 < done.max_rel_diff < 1e-3


def kill_two_in_three_(model, graph):
    """All writers of two units in three have no weights left."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for group in graph.groups:
            for piece in group.slices:
                for position, unit in zip(piece.positions, piece.units, strict=True):
                    if piece.role is Role.WRITE and unit % 3 != 1:
                        tensors[piece.tensor].select(piece.dim, position).zero_()


LIBRARIES = (
    "basic_unet_plus_plus", "unet_residual_3d", "dyn_unet_deep", "attention_unet", "seg_res_net_vae", "med_ne_xt",
    "unetr_thin", "nnunet_residual_2d_batch", "smp_unet_resnet", "smp_fpn_mobilenet", "smp_deeplabv3plus_efficientnet",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_as_shipped(name):
    if find_spec(zoo.ALL[name].needs) is None:
        pytest.skip(f"this network needs {zoo.ALL[name].needs}")
    network, model = zoo.ALL[name].network, zoo.build(name)
    graph = trace(model, network.inputs())
    scramble_(model, seed=1)
    kill_two_in_three_(model, graph)
    small, done = compact(model, graph)
    inputs = network.inputs(batch=2, seed=5)
    for after, before in zip(
        outputs(small, inputs, training=False), outputs(model, inputs, training=False), strict=True
    ):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)  # folded numbers are rounded to float32
    assert done.left > 0.6 * done.dead
    assert done.max_rel_diff < 1e-9


@pytest.mark.parametrize("name", [name for name in TOYS if name != "weight_norm"])
def test_every_toy(name):
    model, graph = traced(name)
    model = copy.deepcopy(model).double()
    scramble_(model, seed=1)
    kill_two_in_three_(model, graph)
    before = copy.deepcopy(model)
    small, done = compact(model, graph)
    inputs = TOYS[name].inputs(batch=2, seed=5)
    expected = outputs(model, inputs, training=False)
    torch.testing.assert_close(outputs(small, inputs, training=False), expected, rtol=1e-9, atol=1e-10)
    if done.exact_in_train:
        expected = outputs(model, inputs, training=True)
        torch.testing.assert_close(outputs(small, inputs, training=True), expected, rtol=1e-9, atol=1e-10)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    shrunk = graph.keep(done.plan.kept).shapes
    assert {n: tuple(t.shape) for n, t in [*small.named_parameters(), *small.named_buffers()]} == shrunk
    assert done.to_record()["proof"]["passed"]


FAULTS = {
    "a fold where padding is seen": lambda r: replace(r, borders=False),
    "the wrong sign": lambda r: replace(r, constants=-r.constants, borders=False),
    "a forgotten activation": lambda r: replace(r, constants=r.constants.where(r.constants > 0, r.constants / 0.2)),
    "a neighbour's": lambda r: replace(r, constants=r.constants.where(r.constants.isnan(), r.constants.roll(2, 1))),
    "a channel that is none": lambda r: replace(r, constants=r.constants.nan_to_num(nan=0.7)),
    "a carrier's inverse": lambda r: replace(r, constants=1 / r.constants),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_lead_to_no_network(monkeypatch, fault):
    model = chain(nn.LeakyReLU(0.2), last=conv(6, 2, 3), dead=(0, 2, 3, 5))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([0.5, 0.1, -0.7, 0.9, 0.2, -0.3]))
    graph = trace(model, torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    compact(model, graph)
    read = constants.read_constants
    monkeypatch.setattr(
        compaction, "read_constants", lambda *given: {w: FAULTS[fault](r) for w, r in read(*given).items()}
    )
    with pytest.raises(ProofError, match=r"its own weights .* differs"):
        compact(model, graph)


def test_nothing_dead_gives_an_equal_copy():
    model = chain(nn.ReLU(), dead=())
    small, done, graph = compacted(model)
    assert done.plan.kept == {}
    assert graph.keep(done.plan.kept) == graph
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_folded_numbers_are_rounded_to_the_networks_type(dtype):
    model = chain(nn.Sigmoid(), last=conv(6, 2, 3)).to(dtype)
    graph = trace(model, torch.zeros(1, 3, 16, 16, dtype=dtype))
    small, done = compact(model.train(), graph)
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    assert small.training
    eps = torch.finfo(dtype).eps
    assert 0 < done.rounding < 4 * eps
    assert done.max_rel_diff < 1e-12


def test_users_mistakes_are_told():
    model = chain(nn.ReLU())
    graph = trace(model, torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    with pytest.raises(PlanMismatchError, match=r"'0.weight' of shape \(6, 3, 3, 3\).*\(4, 3, 3, 3\)"):
        compact(chain(nn.ReLU(), width=4, last=conv(4, 2, 1)), graph)
    with torch.no_grad():
        model[2].bias[0] = torch.inf
    with pytest.raises(InputError, match=r"'2.bias' is not finite"):
        compact(model, graph)


def test_a_network_whose_output_is_not_finite():
    model, graph = traced("weight_norm")
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter[0] = 0
    with pytest.raises(InputError, match="not finite"):
        compact(model, graph)
