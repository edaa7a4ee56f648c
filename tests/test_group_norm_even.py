"""GroupNorm with one channel of each norm group leaving: the indices are proved, the approximation is never hidden."""

import copy
import json
import sys
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from masking import assert_same_outputs, halving, outputs, plan_of, scramble_, silenced
from networks import build, monai, traced
from secateur.cli import main
from secateur.cost.macs import count_macs, graph_macs
from secateur.errors import GraphError, PlanMismatchError, ProofError
from secateur.graph.describe import table
from secateur.graph.records import Role
from secateur.prune import statistics
from secateur.prune.plan import PruningPlan, check_plan
from secateur.prune.surgery import remove, remove_with_proof
from secateur.prune.trial import trace
from toys import TOYS

EVEN = sc.GroupNormMode.EVEN
REASON = "group_norm takes its statistics over the channels that stay"
SEG_RES_NET = {"init_filters": 16, "blocks_down": (1, 2), "blocks_up": (1,), "norm": ("GROUP", {"num_groups": 8})}
NETWORKS = {
    "group_norm_blocks": TOYS["group_norm_blocks"],
    "seg_res_net": monai("SegResNet", 16, 2, in_channels=3, out_channels=1, **SEG_RES_NET),
}


@cache
def evenly(name):
    """A network, not to be changed, with distinct weights, and its graph."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[name].build()
    scramble_(model, seed=0)
    return model, trace(model, NETWORKS[name].inputs(), group_norm=EVEN)


def normed(channels, groups, *, affine=True):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.GroupNorm(groups, channels, affine=affine), nn.Conv2d(channels, 1, 1)
    )


def units_of(model):
    """The filters of each unit of the first convolution, and how the graph calls them."""
    graph = trace(model, torch.zeros(1, 3, 8, 8), group_norm=EVEN)
    (group,) = graph.groups
    write = next(piece for piece in group.slices if piece.tensor == "0.weight")
    pairs = list(zip(write.units, write.positions, strict=True))
    return [[position for unit, position in pairs if unit == wanted] for wanted in range(group.width)], group.exact


@pytest.mark.parametrize(
    ("model", "units", "exact"),
    [
        (normed(8, 2), [[0, 4], [1, 5], [2, 6], [3, 7]], False),
        (normed(4, 1), [[0], [1], [2], [3]], False),
        (normed(4, 4), [[0], [1], [2], [3]], True),  # norm groups of one channel lose nothing by leaving
        (normed(8, 2, affine=False), [[0, 1, 2, 3], [4, 5, 6, 7]], True),  # not recognised by the proof
    ],
)
def test_what_leaves_together(model, units, exact):
    assert units_of(model) == (units, exact)


def test_whole_groups_are_the_default_and_exact():
    model = normed(8, 2)
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    assert [(group.width, group.exact) for group in graph.groups] == [(2, True)]
    plan = halving(graph)
    small, proof = remove_with_proof(model, graph, plan)
    assert (small[1].num_groups, small[1].num_channels) == (1, 4)
    assert (proof.approximate, plan.approximate) == ((), frozenset())


def test_only_what_a_norm_mixes_is_approximate():
    model, graph = evenly("group_norm_blocks")
    assert {group.id: (group.width, group.exact) for group in graph.groups} == {
        "first": (4, False), "down": (16, True), "free": (5, False),
    }  # fmt: skip
    small, proof = remove_with_proof(model, graph, plan_of(graph, {"down": tuple(range(3, 16))}))
    assert proof.approximate == ()
    assert (small.single.num_groups, small.single.num_channels) == (13, 13)
    small, proof = remove_with_proof(model, graph, plan_of(graph, {"free": (0, 2)}))
    assert proof.approximate == ("both.weight",)
    small, proof = remove_with_proof(model, graph, halving(graph))
    assert set(proof.approximate) == {"norm.weight", "inner.weight", "both.weight"}
    assert json.loads(json.dumps(proof.to_record()))["approximate"] == list(proof.approximate)
    assert (small.norm.num_groups, small.norm.num_channels) == (3, 6)
    whole = plan_of(graph, {group.id: tuple(range(group.width)) for group in graph.groups})
    assert remove_with_proof(model, graph, whole)[1].approximate == ()


class OfSome(nn.Module):
    """A GroupNorm with statistics of some of its channels: a slow loop that shares no code with the package."""

    def __init__(self, norm, kept):
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x):
        size, result = self.norm.num_channels // self.norm.num_groups, torch.empty_like(x)
        for n in range(x.shape[0]):
            for first in range(0, x.shape[1], size):
                values = x[n, [channel for channel in range(first, first + size) if channel in self.kept]]
                spread = values.var(unbiased=False).add(self.norm.eps).sqrt()
                for channel in range(first, first + size):
                    scaled = (x[n, channel] - values.mean()) / spread
                    result[n, channel] = scaled * self.norm.weight[channel] + self.norm.bias[channel]
        return result


def with_statistics_of(model, kept):
    """A copy whose GroupNorms, by name, see only the channels in ``kept``."""
    twin = copy.deepcopy(model)
    for name, channels in kept.items():
        parent, _, own = name.rpartition(".")
        setattr(twin.get_submodule(parent), own, OfSome(twin.get_submodule(name), channels))
    return twin


def test_masked_with_statistics_of_what_stays_is_removed():
    """Which channels stay is written out by hand here."""
    model, graph = evenly("group_norm_blocks")
    plan = plan_of(graph, {"first": (0, 3), "free": (1, 2, 4)})
    small = remove(model, graph, plan)
    stays = {0, 3, 4, 7, 8, 11}  # of three norm groups of four channels
    kept = {"norm": stays, "inner": stays, "both": {1, 2, 4} | {5 + channel for channel in stays}}
    reference = with_statistics_of(silenced(model, graph, plan), kept)
    assert_same_outputs(reference, small, NETWORKS["group_norm_blocks"].inputs(batch=2))


def test_seg_res_net_loses_half_of_every_width():
    """Every other channel of each norm group leaves, in every layer: a quarter of the work is left."""
    model, graph = evenly("seg_res_net")
    plan = plan_of(graph, {group.id: tuple(range(0, group.width, 2)) for group in graph.groups})
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}
    kept = {}
    for name, norm in norms.items():
        size = norm.num_channels // norm.num_groups
        kept[name] = {channel for channel in range(norm.num_channels) if channel % size % 2 == 0}
    small, proof = remove_with_proof(model, graph, plan)
    assert {name.removesuffix(".weight") for name in proof.approximate} == norms.keys()
    for name, norm in norms.items():
        left = small.get_submodule(name)
        assert (left.num_groups, left.num_channels) == (norm.num_groups, norm.num_channels // 2)
    inputs = NETWORKS["seg_res_net"].inputs(batch=2)
    reference = with_statistics_of(silenced(model, graph, plan), kept)
    assert_same_outputs(reference, small, inputs)
    share = graph_macs(graph.keep(plan.kept)) / graph_macs(graph)
    assert share == pytest.approx(0.25, abs=0.01)
    assert share == count_macs(small, inputs[0]) / count_macs(model, inputs[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_an_approximation(name):
    """Against the network that keeps its statistics, outputs differ by far more than rounding."""
    model, graph = evenly(name)
    plan, inputs = halving(graph), NETWORKS[name].inputs(batch=2)
    masked = outputs(silenced(model, graph, plan), inputs, training=False)
    removed = outputs(remove(model, graph, plan), inputs, training=False)
    gap = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(masked, removed, strict=True))
    assert gap > 0.01


def shifted(piece):
    return replace(piece, positions=(*piece.positions[1:], piece.positions[0]))


def swapped(piece):
    """The first two units of the slice change places."""
    change = {piece.units[0]: piece.units[1], piece.units[1]: piece.units[0]}
    return replace(piece, units=tuple(change.get(unit, unit) for unit in piece.units))


@pytest.mark.parametrize("change", [shifted, swapped])
@pytest.mark.parametrize(
    ("tensor", "role"),
    [
        ("first.weight", Role.WRITE), ("first.bias", Role.TIED), ("norm.weight", Role.TIED), ("norm.bias", Role.TIED),
        ("inner.weight", Role.TIED), ("conv.weight", Role.READ), ("conv.weight", Role.WRITE),
        ("both.weight", Role.TIED), ("both.bias", Role.TIED), ("down.weight", Role.READ), ("last.weight", Role.READ),
    ],
)  # fmt: skip
def test_a_wrong_index_is_caught(change, tensor, role):
    model, graph = evenly("group_norm_blocks")
    group = graph.group("first")
    slices = tuple(change(piece) if (piece.tensor, piece.role) == (tensor, role) else piece for piece in group.slices)
    assert slices != group.slices
    wrong = replace(graph, groups=tuple(replace(g, slices=slices) if g is group else g for g in graph.groups))
    plan = plan_of(graph, {"first": (1, 2, 3)})
    assert remove_with_proof(model, graph, plan)[1].passed
    with pytest.raises(ProofError, match="differ"):
        remove(model, wrong, plan)


def statistics_of_all(monkeypatch):
    monkeypatch.setattr(statistics, "_staying", lambda graph, kept, norm: torch.ones(graph.shapes[norm]))


def statistics_of_the_others(monkeypatch):
    right = statistics._staying
    monkeypatch.setattr(statistics, "_staying", lambda *args: right(*args).flip(0))


@pytest.mark.parametrize("fault", [statistics_of_all, statistics_of_the_others])
def test_other_statistics_are_caught(fault, monkeypatch):
    model, graph = evenly("group_norm_blocks")
    fault(monkeypatch)
    with pytest.raises(ProofError, match="differ"):
        remove(model, graph, plan_of(graph, {"first": (1, 2, 3)}))
    remove(model, graph, plan_of(graph, {"down": (1, 2, 3)}))  # exact, so nobody asks
    found = trace(model, NETWORKS["group_norm_blocks"].inputs(), group_norm=EVEN)
    assert [group.id for group in found.groups] == ["down"]


def test_an_exact_graph_never_gets_other_statistics():
    """The same slices without the flag are refused: nothing approximate passes as exact."""
    model, graph = evenly("group_norm_blocks")
    silent = replace(graph, groups=tuple(replace(group, approximations=()) for group in graph.groups))
    with pytest.raises(ProofError, match="differ"):
        remove(model, silent, halving(silent))


class Functional(nn.Module):
    """A norm without a module, called by torch's own function and with keywords."""

    def __init__(self, by_keyword):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1)
        self.scale, self.shift, self.by_keyword = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8)), by_keyword

    def forward(self, x):
        x = self.first(x)
        if self.by_keyword:
            return self.last(F.group_norm(x, num_groups=2, weight=self.scale, eps=0.5))
        return self.last(torch.group_norm(x, 2, self.scale, self.shift, 0.5))


@pytest.mark.parametrize("by_keyword", [False, True])
def test_norms_without_a_module(by_keyword):
    model = Functional(by_keyword)
    graph = trace(model, torch.zeros(1, 3, 8, 8), group_norm=EVEN)
    assert [(group.width, group.exact) for group in graph.groups] == [(4, False)]
    small, proof = remove_with_proof(model, graph, halving(graph))
    assert proof.approximate == ("scale",)
    assert small.scale.shape == (4,)


def test_plans_say_it_and_fit_only_their_own_kind_of_units():
    model = normed(4, 2)
    x = torch.zeros(1, 3, 8, 8)
    whole, even = trace(model, x), trace(model, x, group_norm=EVEN)
    assert [group.width for group in (*whole.groups, *even.groups)] == [2, 2]  # so that widths tell nothing
    plans = [sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(0.5)) for graph in (whole, even)]
    assert [plan.approximate for plan in plans] == [frozenset(), {"0"}]
    assert [plan.to_json()["groups"][0]["exact"] for plan in plans] == [True, False]
    assert "approximate" in str(plans[1])
    assert "approximate" not in str(plans[0])
    for plan in plans:
        assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    for graph, plan, words in ((whole, plans[1], "approximately, the graph exactly"), (even, plans[0], "exactly, the")):
        with pytest.raises(PlanMismatchError, match=f"takes group '0' apart {words}"):
            check_plan(graph, plan)
        with pytest.raises(PlanMismatchError, match="group_norm"):
            remove(model, graph, plan)
    again = replace(plans[1], kept={"0": (0,)}, widths={"0": 1})
    assert plans[1].then(again).approximate == {"0"}
    with pytest.raises(PlanMismatchError, match="exactly, the other approximately"):
        plans[0].then(again)


def test_a_plan_of_before_there_was_a_choice_is_exact():
    record = halving(traced("residual")[1]).to_json()
    for group in record["groups"]:
        del group["exact"]
    assert PruningPlan.from_json(record).approximate == frozenset()


def test_graph_table_and_inspection_say_it():
    graph = evenly("group_norm_blocks")[1]
    text = table(graph)
    assert f"approximate: first: {REASON} (seen in norm, inner +1)" in text
    assert f"approximate: free: {REASON} (seen in both)" in text
    assert "approximate: down" not in text
    assert "approximate" not in table(traced("group_norm_blocks")[1])


@pytest.mark.parametrize("mode", sc.GroupNormMode)
def test_the_command_line_says_it(mode, tmp_path, monkeypatch, capsys):
    path = tmp_path / "inspect.json"
    asked = ["--group-norm", mode.value, "--input-shape", "1,3,8,8", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["secateur", "inspect", "toys:GroupNormBlocks", *asked])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["group_norm"] == mode.value
    reasons = {row["id"]: row["approximate"] for row in record["group_table"]}
    assert [row["exact"] for row in record["group_table"]] == [not reason for reason in reasons.values()]
    assert list(filter(None, reasons.values())) == (
        [[f"{REASON} (seen in norm, inner +1)"], [f"{REASON} (seen in both)"]] if mode is EVEN else []
    )
    assert ("approximate: free" in capsys.readouterr().out) == (mode is EVEN)


def test_removals_compose_and_come_back_from_disk(tmp_path):
    model, graph = build("group_norm_blocks"), evenly("group_norm_blocks")[1]
    first = plan_of(graph, {"first": (0, 1, 3), "free": (1, 2, 4)})
    after = sc.remove_(model, graph, first)
    assert after == graph.keep(first.kept)
    assert {group.id: group.exact for group in after.groups} == {"first": False, "down": True, "free": False}
    second = plan_of(after, {"first": (0, 2), "down": (1, 2, 3)})
    sc.remove_(model, after, second)
    both = first.then(second)
    wanted = remove(build("group_norm_blocks"), graph, both)
    torch.testing.assert_close(model.state_dict(), wanted.state_dict(), rtol=0, atol=0)
    sc.save(model, tmp_path, spec=sc.ModelSpec("toys:GroupNormBlocks", {}), plan=both)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(sc.load(tmp_path)(x), model.eval()(x), rtol=0, atol=0)


def test_another_mode_is_refused():
    with pytest.raises(
        GraphError, match=r"group_norm is 'even'; give one of GroupNormMode\.WHOLE, GroupNormMode\.EVEN"
    ):
        trace(normed(4, 2), torch.zeros(1, 3, 8, 8), group_norm="even")
