"""What every criterion promises, whatever it computes."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from masking import scramble_
from networks import ZOO, build, traced
from secateur.graph.records import Role
from secateur.prune.criteria import CRITERIA
from secateur.prune.evidence import Evidence

TAYLOR = [name for name in CRITERIA if name.startswith("taylor")]
every_criterion = pytest.mark.parametrize("name", CRITERIA)


def loss(output, target):
    return (output - target).square().flatten(1).mean(1)


def evidence(network, *, batch=2, batches=2):
    side = ZOO[network].shapes[0][-1]
    generator = torch.Generator().manual_seed(9)
    return Evidence(
        [
            (ZOO[network].inputs(batch=batch, seed=seed), torch.randn(batch, 1, side, side, generator=generator))
            for seed in range(batches)
        ],
        loss,
    )


def score(name, model, graph, network, **kwargs):
    return CRITERIA[name](5).score(model, graph, evidence(network, **kwargs))


@every_criterion
@pytest.mark.parametrize("network", ["unet_residual", "concat_skip", "grouped", "two_inputs"])
def test_every_unit_has_one_finite_score(name, network):
    model, graph = traced(network)
    scores = score(name, model, graph, network)
    assert scores.keys() == {group.id for group in graph.groups}
    for group in graph.groups:
        values = scores[group.id]
        assert values.shape == (group.width,)
        assert values.dtype is torch.float64
        assert values.device.type == "cpu"
        assert not values.requires_grad
        assert bool(values.isfinite().all())
        assert values.unique().numel() == group.width  # nothing is lost on the way
    assert scores.samples == (4 if name in TAYLOR else 0)


@every_criterion
def test_scoring_changes_nothing_and_repeats_itself(name):
    model, graph = traced("unet_residual")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    criterion = CRITERIA[name](5)
    first, second = (criterion.score(model, graph, evidence("unet_residual")) for _ in range(2))
    torch.testing.assert_close(dict(first), dict(second), rtol=0, atol=0)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@every_criterion
def test_settings_are_a_record(name):
    settings = CRITERIA[name](5).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert ("seed" in settings) == (name in ("random", "taylor-random-gradient"))
    assert settings.get("seed", 5) == 5


@pytest.mark.parametrize("name", ["random", "taylor-random-gradient"])
def test_seeds_matter(name):
    model, graph = traced("unet_residual")
    scores = [CRITERIA[name](seed).score(model, graph, evidence("unet_residual")) for seed in (5, 5, 6)]
    torch.testing.assert_close(dict(scores[0]), dict(scores[1]), rtol=0, atol=0)
    assert all(not torch.equal(scores[0][group], scores[2][group]) for group in scores[0])


def permuted(model, graph, group_id, order):
    """``model`` with the units of one group in another order; it computes the same."""
    twin = copy.deepcopy(model)
    tensors = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    for piece in graph.group(group_id).slices:
        if piece.role is Role.WIDTH:
            continue
        places = {}
        for position, unit in zip(piece.positions, piece.units, strict=True):
            places.setdefault(unit, []).append(position)
        tensor = tensors[piece.tensor]
        index = torch.arange(tensor.shape[piece.dim])
        for new, old in enumerate(order):
            index[places[new]] = torch.tensor(places[old])
        with torch.no_grad():
            tensor.copy_(tensor.index_select(piece.dim, index))
    return twin


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
@pytest.mark.parametrize("network", ["residual", "grouped", "concat_twice", "depthwise_multiplier"])
def test_permuted_units_have_permuted_scores(name, network):
    model, graph = build(network).double(), traced(network)[1]
    scramble_(model, seed=7)
    inputs = ZOO[network].inputs(batch=2, dtype=torch.float64)
    given = Evidence([(inputs, torch.ones(2, 1, 8, 8, dtype=torch.float64))], loss)
    group = graph.groups[0]
    order = torch.randperm(group.width, generator=torch.Generator().manual_seed(1))
    twin = permuted(model, graph, group.id, order.tolist())
    torch.testing.assert_close(twin.eval()(*inputs), model.eval()(*inputs))
    before = CRITERIA[name](5).score(model, graph, given)
    after = CRITERIA[name](5).score(twin, graph, given)
    assert not torch.equal(after[group.id], before[group.id])
    torch.testing.assert_close(after[group.id], before[group.id][order], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["l1", "l2", "uniform"])
def test_norms_do_not_see_the_scale_of_a_group(name):
    model, graph = build("concat_skip"), traced("concat_skip")[1]
    before = score(name, model, graph, "concat_skip")
    with torch.no_grad():
        model.first.weight.mul_(100)
    torch.testing.assert_close(dict(score(name, model, graph, "concat_skip")), dict(before), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "power"),
    [("taylor", 0), ("taylor-absolute", 0), ("taylor-signed", 0), ("taylor-unnormalised", 2)],
)
def test_normalised_gradients_do_not_see_the_scale_of_the_loss(name, power):
    model, graph = traced("concat_skip")
    given = evidence("concat_skip")
    louder = replace(given, loss=lambda output, target: 10 * loss(output, target))
    before, after = (CRITERIA[name](0).score(model, graph, each) for each in (given, louder))
    for group, values in before.items():
        torch.testing.assert_close(after[group], values * 10**power, rtol=1e-4, atol=0)


def test_higher_is_kept():
    """A unit that is read by nothing but zeros scores lowest, for every criterion that looks at what it does."""
    model, graph = build("transposed"), traced("transposed")[1]
    with torch.no_grad():
        model.first.weight[2] = 0
        model.first.bias[2] = -40  # softplus of it is zero
    for name in CRITERIA:
        if name not in ("random", "taylor-signed"):
            assert int(score(name, model, graph, "transposed")["first"].argmin()) == 2


def test_names_are_listed_once():
    assert len(CRITERIA) == 9
    assert {type(make(0)).__name__ for make in CRITERIA.values()} == {
        "TaylorFirstOrder", "L1Norm", "L2Norm", "Random", "UniformWidth",
    }  # fmt: skip
