"""Each graph pattern gives the groups and pins that one reads off its definition by hand."""

import pytest

from networks import TOYS, traced
from secateur.graph.records import Role

OUT = {"last": "network output"}

# name -> (group: units), (pinned module: part of the reason)
EXPECTED = {
    "residual": ({"first": 6}, OUT),
    "concat_skip": ({"first": 6, "conv": 4}, OUT),
    "concat_twice": ({"first": 6}, OUT),
    "called_twice": ({"first": 6}, OUT),
    "depthwise": ({"first": 6}, OUT),
    "depthwise_multiplier": ({"first": 6}, OUT),
    "grouped": ({"first": 3, "grouped": 4}, OUT),
    "transposed": ({"first": 6, "up": 4}, OUT),
    "transposed_grouped": (
        {},
        OUT | {"first": "operator conv_transpose2d has no rule here (seen in up)", "up": "conv_transpose2d"},
    ),
    "squeeze_excite": ({"first": 6, "squeeze": 4}, OUT),
    "channel_prelu": ({"first": 6}, OUT),
    "layer_scale": ({"first": 6}, OUT),
    "functional_conv": ({"first": 6, "kernel": 4}, OUT),
    "computed_kernel": ({}, OUT | {"first": "operator conv2d has no rule", "kernel": "operator tanh has no rule"}),
    "spatial_attention": ({"first": 6, "attention": 1}, OUT),
    "stacked": ({}, OUT | {"first": "operator avg_pool3d has no rule here"}),
    "linear_head": ({"hidden": 5}, {"conv": "operator flatten", "classes": "network output"}),
    "softmax_over_channels": ({"conv": 6}, OUT | {"first": "operator softmax has no rule here"}),
    "width_in_reshape": ({"conv": 6}, OUT | {"first": "operator reshape has no rule here"}),
    "width_in_scale": ({"conv": 6}, OUT | {"first": "proof failed"}),
    "widths_together": (
        {},
        {"left": "proof failed", "right": "proof failed", "left_out": "network output", "right_out": "network output"},
    ),
    "weight_norm": (
        {"wide": 6},
        OUT | {"first": "seen in conv", "conv.parametrizations.weight": "operator _weight_norm has no rule here"},
    ),
    "two_inputs": ({"image": 6, "prior": 4}, OUT),
    "several_outputs": ({"body": 6}, {"mask": "network output", "edge": "network output"}),
    "dead_branch": (
        {"first": 6, "conv": 6, "ignored": 2},
        OUT | {"never": "not reached by the forward pass in either mode"},
    ),
    "aliased": ({"first": 6}, OUT),
    "shared_norm": ({"first": 6, "narrow": 4}, OUT),
    "label_map": ({"first": 6}, {"classes": "operator argmax", "last": "not reached by the forward pass"}),
    "drop_out": ({"first": 6, "conv": 6}, OUT),
}


def test_every_pattern_is_expected():
    assert EXPECTED.keys() == TOYS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_groups_and_pins(name):
    groups, pins = EXPECTED[name]
    graph = traced(name)[1]
    assert {group.id: group.width for group in graph.groups} == groups
    assert {pin.module for pin in graph.pinned} == pins.keys()
    assert all(pins[pin.module] in pin.reason for pin in graph.pinned)


def places(name, group, role):
    """(tensor, dimension) -> positions per unit, for one group and role."""
    found = {}
    for piece in traced(name)[1].group(group).slices:
        if piece.role is role:
            units = found.setdefault((piece.tensor, piece.dim), {})
            for position, unit in zip(piece.positions, piece.units, strict=True):
                units.setdefault(unit, []).append(position)
    return found


def test_concatenation_shifts_what_is_read():
    assert places("concat_skip", "first", Role.READ)["last.weight", 1] == {unit: [4 + unit] for unit in range(6)}
    assert places("concat_skip", "conv", Role.READ)["last.weight", 1] == {unit: [unit] for unit in range(4)}
    assert places("concat_skip", "first", Role.TIED)["norm.bias", 0] == {unit: [4 + unit] for unit in range(6)}


def test_a_tensor_concatenated_with_itself_is_read_twice():
    assert places("concat_twice", "first", Role.READ) == {("last.weight", 1): {u: [u, 6 + u] for u in range(6)}}


def test_residual_writers_are_tied():
    assert places("residual", "first", Role.WRITE).keys() == {("first.weight", 0), ("conv.weight", 0)}
    assert places("residual", "first", Role.READ).keys() == {("conv.weight", 1), ("last.weight", 1)}
    tied = {"first.bias", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}
    assert {tensor for tensor, _ in places("residual", "first", Role.TIED)} == tied


def test_grouped_convolutions_lose_one_index_of_every_group():
    assert places("grouped", "first", Role.WRITE)["first.weight", 0] == {unit: [unit, 3 + unit] for unit in range(3)}
    assert places("grouped", "first", Role.READ)["grouped.weight", 1] == {unit: [unit] for unit in range(3)}
    assert places("grouped", "grouped", Role.WRITE)["grouped.weight", 0] == {u: [u, 4 + u] for u in range(4)}


def test_a_depthwise_multiplier_gives_neighbouring_outputs():
    written = places("depthwise_multiplier", "first", Role.WRITE)
    assert written["depthwise.weight", 0] == {unit: [2 * unit, 2 * unit + 1] for unit in range(6)}
    assert places("depthwise_multiplier", "first", Role.READ).keys() == {("last.weight", 1)}


def test_transposed_convolutions_read_along_their_first_dimension():
    assert places("transposed", "first", Role.READ).keys() == {("up.weight", 0)}
    assert places("transposed", "up", Role.WRITE).keys() == {("up.weight", 1)}


def test_parameters_outside_modules_are_tied_or_read():
    assert ("scale", 1) in places("layer_scale", "first", Role.TIED)
    assert places("functional_conv", "first", Role.READ).keys() == {("kernel", 1)}


def test_aliases_go_by_their_first_name():
    names = {piece.tensor.split(".")[0] for group in traced("aliased")[1].groups for piece in group.slices}
    assert names == {"first", "here", "last"}


def test_the_table_names_groups_and_pins():
    text = str(traced("softmax_over_channels")[1])
    assert "conv" in text
    assert "pinned: first [6]: operator softmax has no rule here" in text
