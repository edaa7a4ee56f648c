"""Taylor scores against explicit gate parameters and autograd, one sample at a time."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from networks import ZOO, Toy, build, traced
from secateur.errors import EvidenceError
from secateur.prune.criteria.taylor import LossGradient, RandomGradient, TaylorFirstOrder, TaylorMode
from secateur.prune.evidence import Evidence
from secateur.prune.trial import trace


def residual(net, x, first):
    x = F.relu(net.norm(net.first(x)))
    return net.last((x + net.conv(x * first)) * first)


def concat_skip(net, x, first, conv):
    x = net.first(x)
    low = F.interpolate(net.conv(F.leaky_relu(x) * first), scale_factor=2.0)
    return net.last(F.elu(net.norm(torch.cat([low, x], 1))) * torch.cat([conv, first]))


def concat_twice(net, x, first):
    x = net.first(x)
    return net.last(torch.cat([x, torch.tanh(x)], 1) * torch.cat([first, first]))


def grouped(net, x, first, grouped):
    x = net.grouped(F.mish(net.first(x)) * torch.cat([first, first]))
    return net.last(F.mish(x) * torch.cat([grouped, grouped]))


def depthwise_multiplier(net, x, first):
    x = F.gelu(net.norm(net.depthwise(F.gelu(net.first(x)))))
    return net.last(x * first.repeat_interleave(2, 0))


def called_twice(net, x, first):
    x = net.conv(F.silu(net.first(x)) * first)
    return net.last(net.conv(F.silu(x) * first) * first)


def transposed(net, x, first, up):
    x = net.up(F.max_pool2d(F.softplus(net.first(x)), 2) * first)
    return net.last(F.softplus(x) * up)


REFERENCES = {f.__name__: f for f in (residual, concat_skip, concat_twice, grouped, depthwise_multiplier,
                                      called_twice, transposed)}  # fmt: skip


def loss(output, target):
    """Binary cross-entropy, one value per sample."""
    return F.binary_cross_entropy_with_logits(output, target, reduction="none").flatten(1).mean(1)


def setting(name, batch=3, seed=1):
    model, graph = build(name).double(), traced(name)[1]
    x = ZOO[name].inputs(batch=batch, seed=seed, dtype=torch.float64)[0]
    target = (torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) > 0.5).double()
    return model.eval(), graph, x, target


def gates(graph):
    return [torch.ones(group.width, 1, 1, dtype=torch.float64, requires_grad=True) for group in graph.groups]


def reference(name, criterion, model, graph, x, target):
    """Gate parameters, one backward pass per sample: I = mean f(-d s / d gate)."""
    totals = [0.0] * len(graph.groups)
    for n in range(len(x)):
        ones = gates(graph)
        output = REFERENCES[name](model, x[n : n + 1], *ones)
        leaf = output.detach().requires_grad_()
        if isinstance(criterion.gradient, RandomGradient):
            v = criterion.gradient.of(leaf, None, loss=None, first=n)
        else:
            (v,) = torch.autograd.grad(loss(leaf, target[n : n + 1]).sum(), leaf)
        if criterion.normalize_gradient:
            v = v / v.square().sum().sqrt()
        for index, gradient in enumerate(torch.autograd.grad((output * v).sum(), ones)):
            change = -gradient.flatten()
            if criterion.mode is TaylorMode.ABSOLUTE:
                change = change.abs()
            if criterion.mode is TaylorMode.SQUARED:
                change = change**2
            totals[index] = totals[index] + change / len(x)
    return {group.id: total for group, total in zip(graph.groups, totals, strict=True)}


CASES = [
    TaylorFirstOrder(mode, normalize, gradient)
    for mode in TaylorMode
    for normalize in (True, False)
    for gradient in (LossGradient(), RandomGradient(3))
    if not (mode is TaylorMode.SIGNED and isinstance(gradient, RandomGradient))
]


@pytest.mark.parametrize("criterion", CASES, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_scores_are_those_of_explicit_gates(name, criterion):
    model, graph, x, target = setting(name)
    scores = criterion.score(model, graph, Evidence([(x, target)], loss))
    wanted = reference(name, criterion, model, graph, x, target)
    torch.testing.assert_close(dict(scores), wanted, rtol=1e-9, atol=1e-18)
    assert scores.samples == 3
    assert scores.zero_gradients == 0


def test_terms_of_all_reads_are_added_before_the_square():
    """Two reads that cancel: the unit does nothing, and neither read alone would say so."""

    class Cancelling(Toy):
        def __init__(self):
            super().__init__(width=12)

        def middle(self, x):
            return torch.cat([x, x], 1)

    model = Cancelling().double()
    with torch.no_grad():
        model.last.weight[0, 6:9] = -model.last.weight[0, :3]
    graph = trace(model, torch.randn(1, 3, 8, 8, dtype=torch.float64))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for mode in TaylorMode:
        evidence = Evidence([(x, torch.ones(2, 1, 8, 8, dtype=torch.float64))], loss)
        scores = TaylorFirstOrder(mode).score(model, graph, evidence)["first"].abs()
        assert float(scores[:3].max()) < 1e-12
        assert float(scores[3:].min()) > 1e-9


def test_signed_scores_predict_the_change_to_first_order():
    """For gates 1 - e, s(1 - e) - s(1) = e * score + O(e^2): halving e quarters the error."""
    name = "called_twice"
    model, graph, x, target = setting(name, batch=1)
    criterion = TaylorFirstOrder(TaylorMode.SIGNED, normalize_gradient=False)
    scores = criterion.score(model, graph, Evidence([(x, target)], loss))["first"]

    def change(unit, step):
        gate = torch.ones(6, 1, 1, dtype=torch.float64)
        before = loss(called_twice(model, x, gate), target)
        gate[unit] -= step
        return float((loss(called_twice(model, x, gate), target) - before).detach())

    for unit in range(6):
        errors = [abs(change(unit, step) - step * float(scores[unit])) for step in (0.08, 0.04, 0.02, 0.01)]
        ratios = [coarse / fine for coarse, fine in itertools.pairwise(errors)]
        assert all(3.5 < ratio < 4.5 for ratio in ratios)
        assert errors[-1] < 0.1 * 0.01 * abs(float(scores[unit]))


def test_random_gradients_measure_the_jacobian():
    """E over unit vectors v of (v . J_u)^2 is |J_u|^2 per output element."""
    name = "called_twice"
    model, graph, x, _ = setting(name, batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda gate: called_twice(model, x, gate), gates(graph)[0].detach())
    wanted = jacobian.reshape(64, 6).square().sum(0) / 64

    def error(copies):
        batches = [(x.expand(250, -1, -1, -1), None)] * (copies // 250)
        scores = TaylorFirstOrder(gradient=RandomGradient(2)).score(model, graph, Evidence(batches))["first"]
        return float((scores / wanted - 1).abs().max())

    assert error(8000) < 0.08  # five standard deviations of a mean of 8000 squared normal values
    assert error(8000) < 0.5 * error(250)


def test_random_gradients_are_standard_normal_and_belong_to_the_sample():
    output = torch.zeros(64, 2, 16, 16)
    noise = RandomGradient(4).of(output, None, loss=None, first=0)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert torch.equal(RandomGradient(4).of(output[:3], None, loss=None, first=7), noise[7:10])
    assert noise.flatten(1).unique(dim=0).shape[0] == 64
    assert not torch.equal(RandomGradient(5).of(output, None, loss=None, first=0), noise)


@pytest.mark.parametrize("gradient", [LossGradient(), RandomGradient(1)], ids=str)
def test_batches_do_not_matter(gradient):
    model, graph, x, target = setting("concat_skip", batch=6)
    criterion = TaylorFirstOrder(gradient=gradient)
    whole = criterion.score(model, graph, Evidence([(x, target)], loss))
    for size in (1, 2, 4):
        parts = criterion.score(model, graph, Evidence(zip(x.split(size), target.split(size), strict=True), loss))
        torch.testing.assert_close(dict(parts), dict(whole), rtol=1e-9, atol=0)
        assert parts.samples == 6


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
def test_mean_and_sum_of_a_loss_give_the_scores_of_its_samples(reduce):
    model, graph, x, target = setting("residual")
    criterion = TaylorFirstOrder(normalize_gradient=False)
    wanted = criterion.score(model, graph, Evidence([(x, target)], loss))
    found = criterion.score(model, graph, Evidence([(x, target)], lambda out, t: reduce(loss(out, t))))
    torch.testing.assert_close(dict(found), dict(wanted), rtol=1e-9, atol=0)


def batch_dice(output, target):
    overlap = (output.sigmoid() * target).sum()
    return 1 - 2 * overlap / (output.sigmoid().sum() + target.sum())


def differences(output, target):
    """Of one sample alone it is zero."""
    return (output - output.mean(0, keepdim=True)).square().mean()


@pytest.mark.parametrize("coupled", [batch_dice, differences])
def test_losses_that_couple_samples_are_refused(coupled):
    model, graph, x, target = setting("residual")
    with pytest.raises(EvidenceError, match=r"couples the samples of a batch: .* differ by \d+\.\d%"):
        TaylorFirstOrder().score(model, graph, Evidence([(x, target)], coupled))


def test_samples_without_gradient_are_counted_and_add_nothing():
    model, graph, x, _ = setting("residual", batch=4)
    weight = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)

    def flat_for_some(output, target):
        return target * output.square().flatten(1).mean(1)

    some = TaylorFirstOrder().score(model, graph, Evidence([(x, weight)], flat_for_some))
    rest = TaylorFirstOrder().score(model, graph, Evidence([(x[::3], weight[::3])], flat_for_some))
    assert (some.samples, some.zero_gradients) == (4, 2)
    torch.testing.assert_close(dict(some), {group: values / 2 for group, values in rest.items()})
    with pytest.raises(EvidenceError, match="all 4 samples give a zero gradient"):
        TaylorFirstOrder().score(model, graph, Evidence([(x, 0 * weight)], flat_for_some))


def test_tiny_gradients_count_as_much_as_large_ones():
    """No additive epsilon: a loss of 1e-9 gives the scores of the loss itself."""
    model, graph, x, target = setting("residual")
    wanted = TaylorFirstOrder().score(model, graph, Evidence([(x, target)], loss))
    tiny = TaylorFirstOrder().score(model, graph, Evidence([(x, target)], lambda o, t: 1e-9 * loss(o, t)))
    torch.testing.assert_close(dict(tiny), dict(wanted), rtol=1e-6, atol=0)


def test_unusable_evidence_is_refused():
    model, graph, x, target = setting("residual")
    with pytest.raises(EvidenceError, match=r"needs evidence; give Evidence\(batches, loss\)"):
        TaylorFirstOrder().score(model, graph)
    with pytest.raises(EvidenceError, match="needs a loss"):
        TaylorFirstOrder().score(model, graph, Evidence([(x, target)]))
    with pytest.raises(EvidenceError, match="all 0 samples"):
        TaylorFirstOrder().score(model, graph, Evidence([], loss))
    with pytest.raises(EvidenceError, match="not finite"):
        TaylorFirstOrder().score(model, graph, Evidence([(x / 0, target)], loss))
    with pytest.raises(EvidenceError, match="signed Taylor scores with random gradients mean nothing"):
        TaylorFirstOrder(TaylorMode.SIGNED, gradient=RandomGradient())


def test_several_inputs_and_outputs():
    """A tuple of inputs is spread over the arguments; the first output tensor is the one scored."""
    model, graph = traced("two_inputs")
    inputs = ZOO["two_inputs"].inputs(batch=2)
    scores = TaylorFirstOrder().score(model, graph, Evidence([(inputs, torch.ones(2, 1, 8, 8))], loss))
    assert scores.keys() == {"image", "prior"}
    model, graph = traced("several_outputs")
    inputs = ZOO["several_outputs"].inputs(batch=2)
    scores = TaylorFirstOrder().score(model, graph, Evidence([(inputs, torch.ones(2, 1, 8, 8))], loss))
    assert float(scores["body"].min()) > 0


def test_units_that_the_main_output_does_not_read_score_zero():
    model, graph = traced("dead_branch")
    x = ZOO["dead_branch"].inputs(batch=2)
    scores = TaylorFirstOrder().score(model, graph, Evidence([(x, torch.ones(2, 1, 8, 8))], loss))
    assert scores["ignored"].tolist() == [0.0, 0.0]
    assert float(scores["conv"].min()) > 0


def test_a_network_without_groups_has_no_scores():
    model, graph = traced("computed_kernel")
    assert TaylorFirstOrder().score(model, graph, Evidence([], loss)) == {}
