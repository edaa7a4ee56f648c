"""Planted faults: a graph with one wrong slice, as a wrong rule would make it, never leads to a network."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from masking import halving, plan_of
from networks import build, traced
from secateur.errors import ProofError
from secateur.graph.records import Role
from secateur.graph.trace import trace_channels
from secateur.prune.plan import PruningPlan
from secateur.prune.proof import prove
from secateur.prune.surgery import cut_, remove, remove_with_proof
from secateur.prune.trial import trace
from secateur.prune.twins import randomise_


def corrupt(graph, group_id, tensor, role, change):
    """``graph`` with one slice of one group changed; None drops it."""
    group = graph.group(group_id)
    found = [piece for piece in group.slices if piece.tensor == tensor and piece.role is role]
    assert len(found) == 1
    changed = change(found[0])
    slices = tuple(changed if piece is found[0] else piece for piece in group.slices)
    wrong = replace(group, slices=tuple(piece for piece in slices if piece is not None))
    return replace(graph, groups=tuple(wrong if other is group else other for other in graph.groups))


def shifted(piece):
    """Every position one further, the last one where the first was."""
    return replace(piece, positions=(*piece.positions[1:], piece.positions[0]))


def moved_by(offset):
    def change(piece):
        size = max(piece.positions) + 1
        return replace(piece, positions=tuple((position + offset) % size for position in piece.positions))

    return change


def swapped(piece):
    """Units 0 and 1 change places."""
    return replace(piece, units=(1, 0, *piece.units[2:]))


def without_values(piece):
    """A third of the positions, those of the values, stay with unit 0."""
    pairs = [(p, u) for p, u in zip(piece.positions, piece.units, strict=True) if p < 12 or u]
    return replace(piece, positions=tuple(p for p, _ in pairs), units=tuple(u for _, u in pairs))


def dropped(piece):
    return None


FAULTS = {
    "wrong index in a norm's scale": ("residual", "first", "norm.weight", Role.TIED, shifted),
    "wrong index in a norm's shift": ("concat_skip", "first", "norm.bias", Role.TIED, swapped),
    "wrong index in a running variance": ("residual", "first", "norm.running_var", Role.TIED, swapped),
    "wrong concat offset": ("concat_skip", "first", "last.weight", Role.READ, moved_by(-4)),
    "wrong concat offset by one": ("concat_skip", "first", "last.weight", Role.READ, moved_by(-1)),
    "wrong index in a bias": ("residual", "first", "conv.bias", Role.TIED, shifted),
    "wrong index in a slope": ("channel_prelu", "first", "slopes.weight", Role.TIED, swapped),
    "wrong index in a free parameter": ("layer_scale", "first", "scale", Role.TIED, swapped),
    "forgotten buffer": ("residual", "first", "norm.running_mean", Role.TIED, dropped),
    "forgotten bias": ("residual", "first", "first.bias", Role.TIED, dropped),
    "forgotten read": ("residual", "first", "conv.weight", Role.READ, dropped),
    "swapped units in a filter": ("residual", "first", "conv.weight", Role.WRITE, swapped),
    "swapped units in a read": ("residual", "first", "last.weight", Role.READ, swapped),
    "wrong index in a grouped read": ("grouped", "first", "grouped.weight", Role.READ, swapped),
    "a head's wrong rows": ("attention", "qkv", "qkv.weight", Role.WRITE, moved_by(2)),
    "a head's rows of the values forgotten": ("attention", "qkv", "qkv.weight", Role.WRITE, without_values),
    "a head's wrong columns": ("attention", "qkv", "proj.weight", Role.READ, swapped),
    "forgotten number of heads": ("attention", "qkv", "num_heads", Role.WIDTH, dropped),
    "a head's wrong column of positions": ("window_attention", "qkv", "table", Role.TIED, swapped),
    "wrong norm group": ("group_normed", "first", "norm.weight", Role.TIED, shifted),
    "forgotten number of norm groups": ("group_normed", "first", "norm.num_groups", Role.WIDTH, dropped),
    "wrong half of a gate": ("chunked_gate", "conv", "conv.weight", Role.WRITE, shifted),
    "wrong pixels": ("pixel_shuffled", "up", "up.weight", Role.WRITE, moved_by(2)),
    "wrong index in a transposed depthwise filter": ("transposed_depthwise", "first", "up.bias", Role.TIED, shifted),
    "wrong index in a position embedding": ("perceptron", "embed", "position", Role.TIED, swapped),
    "wrong index in a depthwise filter": ("depthwise", "first", "depthwise.weight", Role.WRITE, swapped),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    name, group, tensor, role, change = FAULTS[fault]
    model, graph = traced(name)
    wrong = corrupt(graph, group, tensor, role, change)
    plan = plan_of(graph, {group: tuple(range(1, graph.group(group).width))})  # unit 0 leaves
    assert remove_with_proof(model, graph, plan)[1].passed
    with pytest.raises(ProofError, match="masked and removed network differ"):
        remove(model, wrong, plan)


def test_a_fresh_network_hides_what_random_weights_show():
    """Norm scales of one and biases of zero look alike: only the random weights tell."""
    model, graph = build("residual"), traced("residual")[1]
    with torch.no_grad():
        for bias in (model.first.bias, model.conv.bias):
            bias.zero_()
    wrong = corrupt(graph, "first", "norm.weight", Role.TIED, shifted)
    with pytest.raises(ProofError, match="random/eval: an output differs"):
        remove(model, wrong, plan_of(graph, {"first": (1, 2, 3, 4, 5)}))


def test_another_network_in_place_of_the_smaller_one_is_caught():
    """The surgery may be right and the network handed over another one: the real weights tell."""
    model, graph = traced("residual")
    kept = halving(graph).kept
    other = build("residual", seed=1)
    cut_(other, graph, kept)
    proof = prove(model, other, graph, kept, cut_)
    assert not proof.passed
    assert proof.failure.startswith("real/eval")
    assert proof.max_abs_diff > 1e-3


def test_outputs_that_are_indices_are_compared():
    model, graph = traced("label_map")
    kept = {"first": (1, 2, 3, 4, 5)}
    wrong = corrupt(graph, "first", "first.bias", Role.TIED, swapped)
    assert prove(model, model, graph, kept, cut_, real_weights=False).passed
    assert not prove(model, model, wrong, kept, cut_, real_weights=False).passed


class Magnifying(nn.Module):
    """The tent map doubles every difference: after 30 times, rounding is a millionth of the output."""

    def __init__(self, times):
        super().__init__()
        self.times = times
        self.first, self.second, self.last = nn.Conv2d(3, 700, 1), nn.Conv2d(700, 700, 1), nn.Conv2d(700, 1, 1)

    def forward(self, x):
        y = self.last(self.second(self.first(x).relu()).relu()).sigmoid()
        for _ in range(self.times):
            y = 1 - (2 * y - 1).abs()
        return y


def magnifying(times):
    model = Magnifying(times)
    return model, trace_channels(model, torch.randn(1, 3, 8, 8))


def test_a_network_that_magnifies_rounding_is_proved_by_how_much():
    model, graph = magnifying(30)
    proof = remove_with_proof(model, graph, halving(graph))[1]
    assert proof.passed
    assert 1e-9 < proof.max_rel_diff < 100 * proof.noise < 1e-3
    assert {group.id for group in trace(model, torch.randn(1, 3, 8, 8)).groups} == {"first", "second"}


def test_a_planted_fault_is_caught_where_rounding_is_magnified():
    model, graph = magnifying(30)
    wrong = corrupt(graph, "first", "second.weight", Role.READ, swapped)
    with pytest.raises(ProofError, match="masked and removed network differ"):
        remove(model, wrong, plan_of(graph, {"first": tuple(range(1, 700))}))


def test_where_rounding_is_all_that_is_left_nothing_is_proved():
    model, graph = magnifying(52)
    proof = prove(model, model, graph, halving(graph).kept, cut_, real_weights=False)
    assert not proof.passed
    assert proof.noise > 1e-3
    traced_again = trace(model, torch.randn(1, 3, 8, 8))
    assert not traced_again.groups
    assert all("the last bit of the inputs alone" in pin.reason for pin in traced_again.pinned[-2:])


class Silent(nn.Module):
    """Whatever is read is multiplied by zero: removal is right, and the proof says nothing."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.last(self.first(x) * 0.0)


def test_a_read_that_changes_nothing_is_reported():
    model = Silent()
    graph = trace(model, torch.randn(1, 3, 8, 8))
    proof = remove_with_proof(model, graph, halving(graph))[1]
    assert proof.passed
    assert proof.untested == ("last.weight of first",)
    assert proof.reads == 1


def test_a_proof_is_a_record():
    model, graph = traced("several_outputs")
    record = remove_with_proof(model, graph, halving(graph))[1].to_record()
    assert record["passed"] is True
    assert record["failure"] == ""
    assert record["reads"] == 2
    assert record.keys() == {
        "passed", "max_abs_diff", "max_rel_diff", "modes", "reads", "untested", "failure", "seconds",
        "approximate", "noise",
    }  # fmt: skip
    assert record["noise"] == 0  # never asked


def test_random_weights_are_distinct_and_keep_the_output_finite():
    model = build("unet_batch_norm").double()
    randomise_(model, seed=0)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point() and tensor.numel() > 1:
            assert tensor.unique().numel() == tensor.numel()
    output = model.eval()(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    assert 1e-3 < float(output.detach().abs().max()) < 1e3


def test_an_empty_plan_is_bitwise_the_identity():
    for name in ("residual", "dyn_unet_deep"):
        model, graph = traced(name)
        for plan in (
            PruningPlan({}, {}),
            plan_of(graph, {group.id: tuple(range(group.width)) for group in graph.groups}),
        ):
            small, proof = remove_with_proof(model, graph, plan)
            assert proof.max_abs_diff == 0.0
            before, after = model.state_dict(), small.state_dict()
            torch.testing.assert_close(after, before, rtol=0, atol=0)
            assert repr(small) == repr(model)


class Hungry(nn.Module):
    """Runs out of memory as soon as it is smaller."""

    def __init__(self, error):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)
        self.error = error

    def forward(self, x):
        x = self.first(x)
        if x.shape[1] < 4:
            raise self.error
        return self.last(x)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_lack_of_memory_says_nothing_of_a_group(error):
    from secateur.prune.trial import trace

    with pytest.raises(type(error), match="memory"):
        trace(Hungry(error), torch.randn(1, 3, 8, 8))
