"""What secateur promises for MONAI's networks as shipped."""

import pytest
from torch import nn

from masking import halving
from networks import MONAI, SLOW, ZOO, monai, traced
from secateur.cost.macs import count_macs, count_params, graph_macs, graph_params
from secateur.prune.surgery import remove_with_proof
from secateur.prune.trial import trace

OUTPUT = "network output"
UNUSED = "not reached by the forward pass in either mode"
every_network = pytest.mark.parametrize("name", MONAI)
every_network_costly = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MONAI]
)


@every_network
def test_only_outputs_are_pinned_and_unused_weights(name):
    model, graph = traced(name)
    assert graph.groups
    for pin in graph.pinned:
        if name == "flexible_unet" and pin.reason == UNUSED:
            assert pin.module.startswith("encoder.")  # the classification head of the encoder
        else:
            assert pin.reason.startswith(OUTPUT)
            assert pin.channels == 1
    free = {piece.tensor for group in graph.groups for piece in group.slices}
    pinned = {pin.module for pin in graph.pinned}
    for module_name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            assert f"{module_name}.weight" in free or module_name in pinned


@every_network_costly
def test_halving_is_proved_and_every_read_is_tested(name):
    model, graph = traced(name)
    small, proof = remove_with_proof(model, graph, halving(graph))
    assert proof.passed
    assert proof.untested == ()
    assert proof.modes == ("random/eval", "random/train", "real/eval", "real/train")
    assert proof.reads == sum(len({read.tensor for read in group.reads()}) for group in graph.groups)
    assert proof.max_rel_diff < 1e-11
    assert small.training == model.training


@every_network_costly
def test_predicted_costs_are_counted_ones(name):
    model, graph = traced(name)
    inputs = ZOO[name].inputs(batch=2)
    assert (graph_macs(graph), graph_params(graph)) == (count_macs(model, inputs), count_params(model))
    plan = halving(graph)
    small = remove_with_proof(model, graph, plan)[0]
    shrunk = graph.keep(plan.kept)
    assert (graph_macs(shrunk), graph_params(shrunk)) == (count_macs(small, inputs), count_params(small))


WIDE = {
    "basic_unet": monai("BasicUNet", 32, 2, 3, 1, features=(16, 16, 32, 64, 128, 16)),
    "unet": monai("UNet", 16, 2, 3, 1, (32, 64, 128), (2, 2), num_res_units=2),
    "dyn_unet": monai("DynUNet", 16, 2, 3, 1, (3, 3, 3), (1, 2, 2), (2, 2), filters=(32, 64, 128), res_block=True),
    "attention_unet": monai("AttentionUnet", 16, 2, 3, 1, (32, 64, 128), (2, 2)),
}


@pytest.mark.parametrize("name", WIDE)
def test_halving_every_group_leaves_a_quarter_of_the_macs(name):
    """Above a quarter by the first and last layers, of which only one side can shrink."""
    graph = trace(WIDE[name].build(), WIDE[name].inputs())
    share = graph_macs(graph.keep(halving(graph).kept)) / graph_macs(graph)
    assert 0.25 < share < 0.27
