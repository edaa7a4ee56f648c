"""Which single weights stay: exactly as many as asked, the ones a slow sort would keep, in every kind of layer."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.errors import BudgetError, InputError, PlanMismatchError, RecipeError
from secateur.prune.schedule import polynomial
from secateur.prune.weights import (
    CONVOLUTIONS,
    LayerWise,
    NetworkWise,
    Pattern,
    PrunableWeight,
    WeightMasks,
    magnitude_masks,
    output_weights,
    prunable_weights,
    random_masks,
    rewind_,
)
from secateur.prune.weights.selection import GONE, largest


def conv_chain(shapes, *, seed=0, dtype=torch.float32, ties=False):
    """1x1 and wider convolutions that need not fit together: only their weights are looked at."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for k, (out, into, size) in enumerate(shapes):
        layer = nn.Conv2d(into, out, size, dtype=dtype)
        values = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64) * 10.0**-k
        layer.weight.data = ((values * 4).round() / 4 if ties else values).to(dtype)
        layers.append(layer)
    return nn.Sequential(*layers)


def by_sorting(arrays, count):
    """Keep the ``count`` largest of all arrays together: a stable sort, so that earlier ones win ties."""
    joined = np.concatenate([np.abs(array.astype(np.float64)).ravel() for array in arrays])
    kept = np.zeros(joined.size, bool)
    kept[np.argsort(-joined, kind="stable")[:count]] = True
    ends = np.cumsum([array.size for array in arrays])[:-1]
    return [part.reshape(array.shape) for part, array in zip(np.split(kept, ends), arrays, strict=True)]


shapes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=4)
compressions = st.one_of(st.integers(1, 40), st.floats(1, 40), st.decimals(1, 40, places=2).map(float))
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


@settings(max_examples=150, deadline=None)
@given(shapes=shapes, compression=compressions, dtype=dtypes, ties=st.booleans(), seed=st.integers(0, 999))
def test_the_largest_stay_as_a_sort_would_have_it(shapes, compression, dtype, ties, seed):
    model = conv_chain(shapes, seed=seed, dtype=dtype, ties=ties)
    weights = prunable_weights(model, keep=())
    arrays = [model.get_parameter(w.name).detach().double().numpy() for w in weights]
    total, exact = sum(array.size for array in arrays), Fraction(str(compression))
    if compression > total:
        with pytest.raises(BudgetError, match=rf"leaves nothing of {total} weights; give at most {total}"):
            magnitude_masks(model, weights, NetworkWise(compression))
        return
    network = magnitude_masks(model, weights, NetworkWise(compression))
    layer = magnitude_masks(model, weights, LayerWise(compression))
    removed = [math.floor(array.size * (1 - 1 / exact)) for array in arrays]
    expected = by_sorting(arrays, total - math.floor(total * (1 - 1 / exact)))
    each = [by_sorting([array], array.size - gone)[0] for array, gone in zip(arrays, removed, strict=True)]
    for masks, reference in ((network, expected), (layer, each)):
        assert list(masks.kept) == [w.name for w in weights]
        for mask, wanted in zip(masks.kept.values(), reference, strict=True):
            np.testing.assert_array_equal(mask.numpy(), wanted)
    assert network.remaining == math.ceil(total / exact)
    assert [item.kept for item in layer.layers] == [math.ceil(array.size / exact) for array in arrays]
    assert layer.too_small == tuple(w.name for w in weights if w.size < compression)
    assert not layer.dead
    assert network.compression == total / network.remaining


@pytest.mark.parametrize(("size", "compression", "kept"), [(6, 1.2, 5), (15, 1.25, 12), (9, 3, 3), (10, 3, 4)])
def test_counts_are_those_of_the_decimal_number(size, compression, kept):
    model = nn.Conv1d(size, 1, 1)  # 6 / 1.2 is a little more than 5 in floating point
    for scope in (LayerWise(compression), NetworkWise(compression)):
        assert magnitude_masks(model, prunable_weights(model, keep=()), scope).remaining == kept


def test_float64_weights_are_compared_as_such():
    model = nn.Sequential(nn.Conv1d(4, 1, 1), nn.Conv1d(1, 1, 1)).double()
    model[0].weight.data = 1 + 1e-12 * torch.tensor([[[2.0], [0], [3], [1]]], dtype=torch.float64)
    model[1].float().weight.data.fill_(-1.5)
    masks = magnitude_masks(model, prunable_weights(model, keep=()), NetworkWise(2.5))
    assert masks.kept["0.weight"].flatten().tolist() == [False, False, True, False]
    assert masks.kept["1.weight"].all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_selection_over_the_whole_range_of_keys(dtype):
    top = torch.iinfo(dtype).max
    keys = torch.randint(0, top, (5000,), generator=torch.Generator().manual_seed(0), dtype=dtype)
    keys = torch.cat([keys, torch.tensor([0, top, top, GONE, 1, top - 1, GONE], dtype=dtype)])
    parts = keys.split([1, 2000, 0, 3006])
    order = np.argsort(-keys.numpy().astype(object), kind="stable")
    for count in (1, 2, 3, 4, 2500, 5005):
        masks = largest([lambda part=part: part for part in parts], count)
        assert [mask.shape for mask in masks] == [part.shape for part in parts]
        assert torch.cat(masks).nonzero().flatten().tolist() == sorted(order[:count].tolist())
    with pytest.raises(BudgetError, match="5006 weights are to stay and 5005 are left"):
        largest([lambda: keys], 5006)


def test_ties_are_kept_from_the_front_for_any_number_of_threads_and_memory_format():
    model = nn.Sequential(nn.Conv2d(8, 512, 3), nn.Conv2d(512, 64, 3))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    weights = prunable_weights(model, keep=())
    assert model[0].weight.numel() == 36864
    seen = []
    threads = torch.get_num_threads()
    for number, memory_format in ((1, torch.contiguous_format), (3, torch.channels_last)):
        torch.set_num_threads(number)
        seen.append(magnitude_masks(model.to(memory_format=memory_format), weights, NetworkWise(8)))
    torch.set_num_threads(threads)
    for masks in seen:
        flat = torch.cat([mask.flatten() for mask in masks.kept.values()])
        assert flat[: masks.remaining].all()  # the first weights, in order, then none
        assert masks.remaining == flat.sum() == (36864 + 294912) // 8
        assert all(mask.is_contiguous() for mask in masks.kept.values())


def test_a_later_round_takes_only_what_is_left():
    # Weights that left come back with the largest values of all: they must not be chosen again.
    model = conv_chain([(6, 4, 3), (5, 6, 3), (2, 3, 1)])
    weights = prunable_weights(model, keep=())
    for make in (LayerWise, NetworkWise):
        masks = magnitude_masks(model, weights, make(2))
        twin = conv_chain([(6, 4, 3), (5, 6, 3), (2, 3, 1)])
        for name, mask in masks.kept.items():
            twin.get_parameter(name).data[~mask] = 1e6
        later = magnitude_masks(twin, weights, make(5), within=masks)
        fresh = magnitude_masks(model, weights, make(5))
        for name, mask in later.kept.items():
            assert torch.equal(mask, fresh.kept[name])
        chance = random_masks(weights, make(5), seed=1, within=masks)
        assert all(not (chance.kept[name] & ~masks.kept[name]).any() for name in masks.kept)
        with pytest.raises(BudgetError, match=r"are to stay and .* are left; ask for more compression"):
            magnitude_masks(model, weights, make(1.5), within=masks)
    with pytest.raises(PlanMismatchError, match=r"'0\.weight' has the shape \(6, 4, 3, 3\), its mask is none"):
        magnitude_masks(model, weights, LayerWise(5), within=WeightMasks({"1.weight": torch.ones(5, dtype=torch.bool)}))


def test_small_layers_keep_one_and_are_named():
    model = conv_chain([(8, 8, 3), (1, 3, 1)])
    masks = magnitude_masks(model, prunable_weights(model, keep=()), LayerWise(16))
    assert [(item.name, item.weights, item.kept) for item in masks.layers] == [
        ("0.weight", 576, 36),
        ("1.weight", 3, 1),
    ]
    assert masks.too_small == ("1.weight",)
    assert masks.warnings == ("1.weight keeps one of 3, fewer than 16",)
    assert masks.kept["1.weight"].flatten()[model[1].weight.abs().argmax()]


def test_layers_that_die_are_named():
    model = conv_chain([(8, 8, 3), (8, 8, 3)])  # the second is ten times smaller
    model[1].weight.data *= 1e-3
    masks = magnitude_masks(model, prunable_weights(model, keep=()), NetworkWise(4))
    assert masks.dead == ("1.weight",)
    assert masks.warnings == ("1.weight died: none of its 576 weights is left",)
    record = masks.to_record()
    assert record["dead"] == ["1.weight"]
    assert (record["weights"], record["kept"], record["compression"]) == (1152, 288, 4.0)
    assert record["layers"][0] == {"name": "0.weight", "weights": 576, "kept": 288, "density": 0.5}
    assert "288 of 1152 weights, compression 4\n1.weight died" in str(masks)


def slow_pattern(values, n, m):
    """``(out, in, positions)``: loops over all runs along ``in``; the first of equal ones stay."""
    kept = np.zeros(values.shape, bool)
    for out in range(values.shape[0]):
        for position in range(values.shape[2]):
            for start in range(0, values.shape[1], m):
                run = np.abs(values[out, start : start + m, position])
                kept[out, start + np.argsort(-run, kind="stable")[:n], position] = True
    return kept


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 6, 3),
        nn.Conv2d(3, 6, 3),
        nn.Conv2d(12, 8, 1, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(8, 6, 2),
        nn.ConvTranspose2d(12, 8, 3, groups=2),
        nn.Conv1d(7, 3, 3),
        nn.Conv3d(9, 4, 3),
        nn.ConvTranspose3d(9, 6, 2, groups=3),
        nn.Linear(10, 3),
    ],
    ids=str,
)
def test_patterns_run_along_the_input_channels(layer, n, m):
    weights = prunable_weights(layer, keep=(), layers=(*CONVOLUTIONS, nn.Linear))
    layer.weight.data = (layer.weight.data * 20).round()  # with ties
    masks = magnitude_masks(layer, weights, Pattern(n, m))
    values, kept = layer.weight.detach().numpy(), masks.kept["weight"].numpy()
    groups = getattr(layer, "groups", 1)
    if "Transpose" in type(layer).__name__:  # (in, out / groups, *kernel)
        values, kept = np.moveaxis(values, 0, 1), np.moveaxis(kept, 0, 1)
        parts = zip(np.split(values, groups, axis=1), np.split(kept, groups, axis=1), strict=True)
    else:  # (out, in / groups, *kernel): every output sums over all that is there
        parts = [(values, kept)]
    for value, mask in parts:
        value, mask = (array.reshape(*array.shape[:2], -1) for array in (value, mask))
        np.testing.assert_array_equal(mask, slow_pattern(value, n, m))


def test_a_pattern_keeps_what_left_before_out():
    layer = nn.Conv2d(8, 4, 1)
    gone = torch.zeros(4, 8, 1, 1, dtype=torch.bool)
    gone[:, :3] = True
    masks = magnitude_masks(layer, prunable_weights(layer, keep=()), Pattern(), within=WeightMasks({"weight": ~gone}))
    assert masks.kept["weight"][:, :4].flatten(1).sum(1).tolist() == [1] * 4
    assert masks.kept["weight"][:, 4:].flatten(1).sum(1).tolist() == [2] * 4
    assert not (masks.kept["weight"] & gone).any()


def test_random_masks_have_the_same_counts_and_another_choice():
    model = conv_chain([(16, 8, 3), (16, 16, 3), (1, 5, 1)])
    weights = prunable_weights(model, keep=())
    for scope in (LayerWise(10), NetworkWise(10), Pattern()):
        chosen = magnitude_masks(model, weights, scope)
        chance = [random_masks(weights, scope, seed=seed) for seed in (0, 0, 1)]
        assert [mask.remaining for mask in chance] == [chosen.remaining] * 3
        assert all(torch.equal(chance[0].kept[name], chance[1].kept[name]) for name in chosen.kept)
        assert any(not torch.equal(chance[0].kept[name], chance[2].kept[name]) for name in chosen.kept)
    layered = random_masks(weights, LayerWise(10), seed=0)
    assert layered.layers == magnitude_masks(model, weights, LayerWise(10)).layers
    # Chance takes the same share everywhere; a tenth of 3461 is kept within four standard deviations.
    spread = random_masks(weights, NetworkWise(10), seed=0).layers[1]
    assert abs(spread.kept - 230.4) < 4 * math.sqrt(230.4)
    first, second = (random_masks(weights, LayerWise(2), seed=seed).kept["0.weight"] for seed in (0, 1))
    assert 0.4 < (first == second).float().mean() < 0.6


class Shared(nn.Module):
    """One kernel used by two layers, one layer under two names, and a Linear at the end."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.second.weight = self.first.weight
        self.alias = self.first
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.up(self.norm(self.second(self.first(x)))).mean((2, 3)))


def test_which_weights_may_leave():
    model = Shared()
    weights = prunable_weights(model, keep=())
    assert weights == (
        PrunableWeight("first.weight", (4, 4, 3, 3)),
        PrunableWeight("up.weight", (4, 2, 2, 2), input_dim=0),
    )
    masks = magnitude_masks(model, weights, NetworkWise(4))
    assert masks.weights == 144 + 32
    masks.apply_(model)
    masks.check(model)
    assert torch.count_nonzero(model.second.weight) == masks.layers[0].kept
    assert [w.name for w in prunable_weights(model, keep=(), layers=(nn.Linear,))] == ["head.weight"]
    assert [w.name for w in prunable_weights(model, keep=["up"])] == ["first.weight"]
    assert [w.name for w in prunable_weights(model, keep=["alias"])] == ["up.weight"]  # under any of its names
    assert [w.name for w in prunable_weights(model, keep=["second.weight"])] == ["up.weight"]
    assert [w.name for w in prunable_weights(model, keep=(), parts=["up", "norm"])] == ["up.weight"]


def test_three_dimensions_and_transposed_grouped_layers():
    model = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ConvTranspose3d(4, 4, 2, groups=2), nn.Conv1d(2, 2, 3, groups=2))
    weights = prunable_weights(model, keep=())
    assert [(w.input_dim, w.input_groups, w.size) for w in weights] == [(1, 1, 108), (0, 2, 64), (1, 1, 6)]
    masks = magnitude_masks(model, weights, LayerWise(7))
    assert [item.kept for item in masks.layers] == [16, 10, 1]


def test_a_head_with_weight_norm_stays_whole_with_its_bias():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 1, 1)))
    keep = output_weights(model, torch.zeros(1, 3, 8, 8))
    assert [weight.name for weight in prunable_weights(model, keep=keep)] == ["0.weight"]


def test_weights_that_cannot_be_held_are_refused():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)))
    with pytest.raises(InputError, match=r"weight of '1' is computed from .*original1.*remove the parametrization"):
        prunable_weights(model, keep=())
    assert [w.name for w in prunable_weights(model, keep=["1"])] == ["0.weight"]
    with pytest.raises(InputError, match="has no shape yet; run the network once"):
        prunable_weights(nn.LazyConv2d(2, 3), keep=())
    with pytest.raises(InputError, match="has no weights that may leave: of its 2 parameters none"):
        prunable_weights(nn.Sequential(nn.Conv2d(1, 1, 1)), keep=["0"])
    with pytest.raises(InputError, match=r"has no module or parameter 'heda'; the nearest are head"):
        prunable_weights(Shared(), keep=["heda"])


class Heads(nn.Module):
    """Two outputs with something behind them, a sum over the second, and a deep-supervision head in train mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.deep = nn.Conv2d(4, 1, 1)
        self.mask, self.distance, self.skip = (nn.Conv2d(4, 1, 1) for _ in range(3))

    def forward(self, x):
        features = self.body(x)
        mask = nn.functional.interpolate(self.mask(features).relu_(), scale_factor=2)
        distance = self.distance(features) + self.skip(features)
        if self.training:
            return {"all": [torch.cat([mask[..., ::2, ::2], distance], 1), self.deep(features)]}
        return torch.cat([mask[..., ::2, ::2].softmax(1), distance], 1)


def test_output_layers_are_found_in_both_modes():
    model = Heads().requires_grad_(False)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.no_grad():
        found = output_weights(model, torch.zeros(1, 3, 4, 4))
    assert found == {"deep.weight", "mask.weight", "distance.weight", "skip.weight"}
    assert [w.name for w in prunable_weights(model, keep=found)] == ["body.0.weight"]
    assert torch.equal(torch.rand(2), expected)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert output_weights(Shared(), torch.zeros(2, 4, 4, 4)) == {"head.weight"}
    with pytest.raises(InputError, match="No convolution or Linear layer leads to the outputs of ReLU"):
        output_weights(nn.ReLU(), torch.zeros(2, 4))


def test_hidden_output_layers_are_refused():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.head, self.body(x), use_reentrant=True)

    with pytest.raises(InputError, match="come out of activation checkpointing"):
        output_weights(Checkpointed(), torch.zeros(2, 3, 4, 4))


def test_bad_ratios_are_refused():
    for compression in (0.5, 0, -1, math.nan, math.inf):
        for make in (LayerWise, NetworkWise):
            with pytest.raises(BudgetError, match="weights before / weights left, so give 1 or more"):
                make(compression)
    model = conv_chain([(2, 2, 1), (1, 2, 1)])
    weights = prunable_weights(model, keep=())
    for make in (LayerWise, NetworkWise):
        with pytest.raises(BudgetError, match="compression 7 leaves nothing of 6 weights; give at most 6"):
            magnitude_masks(model, weights, make(7))
        assert magnitude_masks(model, weights, make(1)).compression == 1
    for n, m in ((0, 4), (5, 4)):
        with pytest.raises(BudgetError, match=f"got {n}:{m}"):
            Pattern(n, m)
    assert magnitude_masks(model, weights, NetworkWise(6)).remaining == 1
    with pytest.raises(BudgetError, match="leave none of 4 weights"):
        WeightMasks({"0.weight": torch.zeros(2, 2, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"mask of '0\.weight' is torch\.uint8"):
        WeightMasks({"0.weight": torch.ones(2, 2, dtype=torch.uint8)})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    model = conv_chain([(4, 4, 3), (2, 2, 1)])
    model[1].weight.data[1, 1] = bad
    with pytest.raises(InputError, match=r"'1\.weight' is not finite"):
        magnitude_masks(model, prunable_weights(model, keep=()), LayerWise(2))


def test_another_network_is_refused():
    model, other = conv_chain([(4, 4, 3)]), conv_chain([(4, 5, 3)])
    weights = prunable_weights(model, keep=())
    with pytest.raises(
        PlanMismatchError, match=r"of shape \(4, 4, 3, 3\), which this Sequential has in the shape \(4, 5"
    ):
        magnitude_masks(other, weights, LayerWise(2))
    masks = magnitude_masks(model, weights, LayerWise(2))
    for act in (masks.apply_, masks.check):
        with pytest.raises(PlanMismatchError, match="which this Linear does not have"):
            act(nn.Linear(2, 2))


@given(rounds=st.integers(1, 12), compression=st.floats(1, 1e4), power=st.floats(1, 5))
def test_the_polynomial_schedule_rises_to_its_end(rounds, compression, power):
    path = [polynomial(k, rounds, compression, power=power) for k in range(rounds + 1)]
    assert path[0] == 1
    assert path[-1] == compression
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(path))
    assert all(1 <= value <= compression * (1 + 1e-9) for value in path)


def test_the_polynomial_schedule_is_the_paper_s():
    # Zhu & Gupta, equation 1, from 0 to 87.5 % in four steps: 1 - (3/4)^3 = 37/64 of it after the first.
    gone = [1 - 1 / polynomial(k, 4, 8) for k in range(5)]
    assert gone == pytest.approx([0, 0.875 * 37 / 64, 0.875 * 56 / 64, 0.875 * 63 / 64, 0.875])
    assert polynomial(1, 2, 3, power=1) == pytest.approx(1.5)
    for wrong in ((5, 4, 8), (-1, 4, 8), (0, 0, 8), (1, 4, 0.5), (1, 4, math.inf)):
        with pytest.raises(RecipeError, match="give at least one round"):
            polynomial(*wrong)
    with pytest.raises(RecipeError, match="power 0"):
        polynomial(1, 4, 8, power=0)


def test_rewinding_gives_early_values_to_what_is_left():
    early = conv_chain([(4, 4, 3), (2, 4, 1)], seed=1)
    model = conv_chain([(4, 4, 3), (2, 4, 1)], seed=2)
    masks = magnitude_masks(model, prunable_weights(model, keep=["1"]), LayerWise(3))
    wrong = {**early.state_dict(), "1.bias": torch.zeros(3)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PlanMismatchError, match=r"'1\.bias' in the shape \(3,\), this network \(2,\)"):
        rewind_(model, wrong, masks)
    with pytest.raises(PlanMismatchError, match=r"weights are chosen in 'gone'"):
        rewind_(model, early.state_dict(), WeightMasks({"gone": torch.ones(2, dtype=torch.bool)}))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rewind_(model, early.state_dict(), masks)
    assert torch.equal(model[0].weight, early[0].weight * masks.kept["0.weight"])
    assert torch.equal(model[1].weight, early[1].weight)
    assert torch.equal(model[0].bias, early[0].bias)
    assert early[0].weight.count_nonzero() == 144
