"""MONAI's networks as shipped: all are captured, cut to half of every width, proved, and what stays is explained."""

import pytest
import torch

from masking import halving, random_plan
from networks import SHIPPED, Shipped
from secateur.cost.macs import count_macs, count_params, graph_macs, graph_params
from secateur.graph.records import ChannelGraph
from secateur.prune.surgery import cut_, remove_with_proof
from secateur.prune.trial import trace


def build(shipped: Shipped) -> tuple[torch.nn.Module, ChannelGraph]:
    pytest.importorskip(shipped.needs, reason=f"this network needs {shipped.needs}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = shipped.network.build()
    return model, trace(model, shipped.network.inputs())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * shipped.slow) for name, shipped in SHIPPED.items()]
)
def test_half_of_every_group_goes_and_the_rest_is_explained(name):
    shipped = SHIPPED[name]
    model, graph = build(shipped)
    assert all(pin.reason.startswith(shipped.pins) for pin in graph.pinned)
    plan = halving(graph)
    small, proof = remove_with_proof(model, graph, plan)
    assert proof.untested == ()
    assert proof.max_rel_diff < 1e-11
    shrunk, inputs = graph.keep(plan.kept), shipped.network.inputs()
    assert (graph_macs(graph), graph_params(graph)) == (count_macs(model, inputs), count_params(model))
    assert (graph_macs(shrunk), graph_params(shrunk)) == (count_macs(small, inputs), count_params(small))
    assert graph_macs(shrunk) / graph_macs(graph) <= shipped.macs_kept
    forward_and_backward(small, inputs)
    cut_(model, graph, random_plan(graph, seed=1).kept)
    forward_and_backward(model, inputs)


def forward_and_backward(model, inputs):
    leaves = torch.utils._pytree.tree_leaves(model.train()(*(torch.cat([tensor, tensor]) for tensor in inputs)))
    sum(leaf.square().mean() for leaf in leaves if isinstance(leaf, torch.Tensor)).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
