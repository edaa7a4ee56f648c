"""The zoo: every member is captured, cut to half of every width and proved; it trains on, is saved, and is shipped."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import secateur as sc
from masking import halving, random_plan
from secateur.cost.macs import count_macs, count_params, graph_macs, graph_params
from secateur.deploy.onnx import Batch, ExportedFile, save_onnx, trace_onnx
from secateur.deploy.parity import check_parity, require_parity
from secateur.errors import GraphError
from secateur.graph.records import ChannelGraph
from secateur.prune.plan import PruningPlan
from secateur.prune.proof import Proof
from secateur.prune.surgery import cut_, remove_with_proof
from zoo import ALL, build
from zoo_member import Shipped

# Sums in another order differ by about 1e-15 of the largest output. Norms over few values magnify that: the proof's
# batch is chosen so that it grows a thousandfold at most, and the zoo's depth leaves another order. Measured: 3e-13.
ROUNDING = 1e-11
_BEFORE, _AFTER = 3, 30  # training steps before and after a removal


@dataclass(frozen=True)
class Member:
    """A member of the zoo, and what half of its widths left."""

    name: str
    shipped: Shipped
    model: nn.Module
    graph: ChannelGraph
    plan: PruningPlan
    small: nn.Module
    proof: Proof

    def inputs(self, batch: int = 1) -> tuple[Tensor, ...]:
        return self.shipped.network.inputs(batch=batch)


def members(slow: Mapping[str, bool]) -> list:
    return [pytest.param(name, marks=[pytest.mark.slow] * heavy) for name, heavy in slow.items()]


@pytest.fixture(scope="module", params=members({name: shipped.slow for name, shipped in ALL.items()}))
def member(request) -> Member:
    """One member after another, each traced and cut once for all tests of it."""
    shipped = ALL[request.param]
    if find_spec(shipped.needs) is None:
        pytest.skip(f"this network needs {shipped.needs}")
    model = build(request.param)
    graph = sc.trace(model, shipped.network.inputs())
    plan = halving(graph)
    return Member(request.param, shipped, model, graph, plan, *remove_with_proof(model, graph, plan))


def test_the_removal_is_proved_and_what_stays_is_explained(member):
    assert member.graph.groups
    assert [pin for pin in member.graph.pinned if not pin.reason.startswith(member.shipped.pins)] == []
    assert [read for read in member.proof.untested if not read.startswith(member.shipped.unread)] == []
    assert {"random/eval", "random/train", "real/eval", "real/train"} <= {*member.proof.modes}
    assert member.proof.max_rel_diff < ROUNDING


def test_costs_are_those_predicted_and_small(member):
    inputs, shrunk = member.inputs(), member.graph.keep(member.plan.kept)
    for graph, model in ((member.graph, member.model), (shrunk, member.small)):
        assert (graph_macs(graph), graph_params(graph)) == (count_macs(model, inputs), count_params(model))
    kept = graph_macs(shrunk) / graph_macs(member.graph)
    assert member.shipped.macs_kept - 0.02 < kept <= member.shipped.macs_kept


@pytest.mark.parametrize("name", ALL)
def test_limits_are_those_of_the_prototype(name):
    shipped = ALL[name]
    if shipped.prototype is not None:
        allowed = shipped.prototype - 0.001 if shipped.transformer else shipped.prototype + 0.02
        assert shipped.macs_kept <= round(allowed, 3)


@pytest.mark.parametrize("training", [True, False])
def test_the_smaller_network_runs_forward_and_backward(member, training):
    cut = copy.deepcopy(member.model)
    cut_(cut, member.graph, random_plan(member.graph, seed=1).kept)
    for model in (copy.deepcopy(member.small), cut):
        loss_of(model.train(training)(*member.inputs(batch=2))).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_training_goes_on_after_a_removal(member):
    """With the optimizer's state: the loss on one batch falls from where the removal left it."""
    model = copy.deepcopy(member.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs = member.inputs(batch=2)
    train(model, optimizer, inputs, _BEFORE)
    sc.remove_(model, member.graph, member.plan, optimizer=optimizer)
    trained = {
        parameter: optimizer.state[parameter] for parameter in model.parameters() if parameter in optimizer.state
    }
    assert trained
    assert all(state["exp_avg"].shape == parameter.shape for parameter, state in trained.items())
    losses = train(model, optimizer, inputs, _AFTER)
    assert losses[-1] < losses[0]
    assert all(int(state["step"]) == _BEFORE + _AFTER for state in trained.values())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: tuple[Tensor, ...], steps: int) -> list[float]:
    """The loss before each step and after the last, on one batch, with the same drop-out each time."""
    losses = []
    for _ in range(steps + 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loss = loss_of(model(*inputs))
        losses.append(loss.item())
        if len(losses) <= steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


def loss_of(output: object) -> Tensor:
    """How far every map is from fixed noise, plus the losses that the network returns itself."""
    generator = torch.Generator().manual_seed(0)
    terms = [
        F.mse_loss(leaf, torch.randn(leaf.shape, generator=generator)) if leaf.ndim > 1 else leaf.sum()
        for leaf in leaves_of(output)
    ]
    return torch.stack(terms).sum()


def leaves_of(output: object) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))


def test_saved_and_loaded_it_answers_the_same(member, tmp_path):
    sc.save(member.small, tmp_path, spec=sc.ModelSpec("zoo:build", {"name": member.name}), plan=member.plan)
    loaded = sc.load(tmp_path)
    with torch.no_grad():
        answers = [list(leaves_of(model.eval()(*member.inputs()))) for model in (copy.deepcopy(member.small), loaded)]
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=0)


class OneAnswer(nn.Module):
    """A network whose maps, whatever it returns them in, are resized to the first and joined along the channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        maps = [leaf for leaf in leaves_of(self.network(x)) if leaf.ndim > 2]
        sides = maps[0].shape[2:]
        return torch.cat([found if found.shape[2:] == sides else F.interpolate(found, sides) for found in maps], 1)


@pytest.mark.slow
def test_exported_it_answers_the_same(member, tmp_path):
    pytest.importorskip("openvino")
    (image,) = member.inputs()
    if member.shipped.not_exported:
        for model in (member.model, member.small):
            with pytest.raises(GraphError, match=member.shipped.not_exported):
                trace_onnx(OneAnswer(model), image, Batch.FIXED)
        return
    file = ExportedFile(tmp_path / "model.onnx", Batch.FIXED)
    wrapped = OneAnswer(member.small)
    save_onnx(trace_onnx(wrapped, image, Batch.FIXED), file.path)
    require_parity(check_parity(wrapped, [file], [image], threads=1))
