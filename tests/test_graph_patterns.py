"""Each graph pattern gives the groups and pins that one reads off its definition by hand."""

import pytest

from networks import TOYS, traced
from secateur.graph.records import Role
from secateur.graph.rules import RULES
from secateur.graph.trace import trace_channels

OUT = {"last": "network output"}
STREAM = dict.fromkeys(("embed", "proj", "down"), "layer_norm mixes all channels (seen in norm")

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
    "transposed_grouped": ({"first": 3, "up": 2}, OUT),
    "squeeze_excite": ({"first": 6, "squeeze": 4}, OUT),
    "channel_prelu": ({"first": 6}, OUT),
    "layer_scale": ({"first": 6}, OUT),
    "functional_conv": ({"first": 6, "kernel": 4}, OUT),
    "computed_kernel": ({}, OUT | {"first": "operator conv2d has no rule", "kernel": "operator tanh has no rule"}),
    "spatial_attention": ({"first": 6, "attention": 1}, OUT),
    "stacked": ({}, OUT | {"first": "avg_pool3d mixes all channels"}),
    "linear_head": ({"conv": 6, "hidden": 5}, {"classes": "network output"}),
    "softmax_over_channels": ({"conv": 6}, OUT | {"first": "softmax mixes all channels"}),
    "width_in_reshape": ({"conv": 6}, OUT | {"first": "proof failed: the smaller network does not run"}),
    "width_in_scale": ({"conv": 6}, OUT | {"first": "proof failed"}),
    "widths_together": (
        {},
        {"left": "proof failed", "right": "proof failed", "left_out": "network output", "right_out": "network output"},
    ),
    "weight_norm": (
        {"conv.parametrizations.weight": 6, "wide": 6},
        OUT | {"first": "weight norm takes the length of a weight over all its inputs (seen in conv"},
    ),
    "two_inputs": ({"image": 6, "prior": 4}, OUT),
    "several_outputs": ({"body": 6}, {"mask": "network output", "edge": "network output"}),
    "dead_branch": (
        {"first": 6, "conv": 6, "ignored": 2},
        OUT | {"never": "not reached by the forward pass in either mode"},
    ),
    "aliased": ({"first": 6}, OUT),
    "shared_norm": ({"first": 6, "narrow": 4}, OUT),
    "label_map": ({"first": 6}, {"classes": "argmax mixes all channels", "last": "not reached by the forward pass"}),
    "drop_out": ({"first": 6, "conv": 6}, OUT),
    "group_norm_blocks": (
        {"down": 16},
        OUT | dict.fromkeys(("first", "conv", "free"), "these channels can only leave all at once"),
    ),
    "group_normed": ({"first": 3}, OUT),
    "channel_gates": ({"attention": 1, "conv": 6}, OUT | {"first": "mean mixes all channels"}),
    "response_norm": ({"conv": 6}, OUT | {"first": "mean mixes all channels"}),
    "pixel_shuffled": ({"first": 6, "up": 2}, OUT),
    "pixel_shuffled_by_hand": ({"first": 6, "up": 2}, OUT),
    "pixel_unshuffled": ({"first": 6}, OUT),
    "chunked_gate": ({"first": 6, "conv": 2}, OUT),
    "halves_apart": ({"first": 3, "left": 4}, OUT),
    "uneven_parts": (
        {"left": 4},
        OUT | dict.fromkeys(("first", "first#2"), "proof failed: the smaller network does not run (split_with_sizes"),
    ),
    "shuffled": ({"first": 3, "conv": 6}, OUT),
    "split_attention": ({"first": 6, "conv": 4}, OUT),
    "padded_channels": ({"first": 6}, OUT | {"conv": "channels are padded with a constant"}),
    "moved": ({"first": 6}, OUT),
    "transposed_depthwise": ({"first": 6}, OUT),
    "standardised_kernel": ({}, OUT | {"first": "operator conv2d has no rule", "kernel": "operator mean has no rule"}),
    "fourier": ({"conv": 6}, OUT | {"first": "operator fft_fft2 has no rule here"}),
    "perceptron": ({"embed": 6, "up": 8, "down": 6}, OUT),
    "attention": ({"qkv": 3, "up": 8}, OUT | STREAM),
    "fused_attention": ({"qkv": 3, "up": 8}, OUT | STREAM),
    "einsum_attention": ({"embed": 6, "q": 3}, OUT),
    "batched_heads": ({"embed": 6, "q": 3, "proj": 6}, OUT),
    "window_attention": ({"embed": 6, "qkv": 3}, OUT),
    "width_of_the_stream": ({}, OUT | dict.fromkeys(("embed", "qkv"), "proof failed") | {"table": "not reached"}),
    "patch_merging": ({"embed": 6, "reduction": 4}, OUT),
    "channel_attention": ({"conv": 6}, OUT | {"first": "matmul crosses two kinds of channels"}),
    "torch_attention": (
        {"attention.out_proj": 6},
        OUT | {"embed": "was expecting embedding dimension of 6", "attention": "proof failed: the smaller network"},
    ),
    "flattened": ({"conv": 6, "hidden": 5}, {"classes": "network output"}),
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


def test_a_head_is_its_rows_of_queries_keys_and_values_and_the_columns_that_read_them():
    written = places("attention", "qkv", Role.WRITE)
    assert written == {("qkv.weight", 0): {h: [2 * h + d + 6 * i for i in range(3) for d in (0, 1)] for h in range(3)}}
    assert places("attention", "qkv", Role.READ) == {("proj.weight", 1): {h: [2 * h, 2 * h + 1] for h in range(3)}}
    assert places("attention", "qkv", Role.WIDTH) == {("num_heads", 0): {h: [h] for h in range(3)}}


def test_a_table_of_positions_loses_the_column_of_a_head():
    assert places("window_attention", "qkv", Role.TIED)["table", 1] == {h: [h] for h in range(3)}
    assert places("window_attention", "qkv", Role.WIDTH) == {("num_heads", 0): {h: [h] for h in range(3)}}


def test_norm_groups_leave_as_a_whole_and_are_counted():
    assert places("group_normed", "first", Role.TIED)["norm.weight", 0] == {g: [2 * g, 2 * g + 1] for g in range(3)}
    counted = {("norm.num_groups", 0), ("plain.num_groups", 0), ("plain.num_channels", 0)}
    assert places("group_normed", "first", Role.WIDTH).keys() == counted


def test_a_flattened_channel_is_read_at_every_position():
    assert places("flattened", "conv", Role.READ)["hidden.weight", 1] == {
        unit: list(range(64 * unit, 64 * unit + 64)) for unit in range(6)
    }


def test_a_pixel_is_made_of_neighbouring_channels():
    for name in ("pixel_shuffled", "pixel_shuffled_by_hand"):
        assert places(name, "up", Role.WRITE)["up.weight", 0] == {
            unit: list(range(4 * unit, 4 * unit + 4)) for unit in (0, 1)
        }


def test_a_call_that_its_rule_does_not_expect_is_pinned(monkeypatch):
    def surprised(call):
        return call.constant("no such argument")

    monkeypatch.setitem(RULES, "elu", surprised)
    network = TOYS["concat_skip"]
    graph = trace_channels(network.build(), network.inputs())
    assert [group.id for group in graph.groups] == []
    assert {pin.module for pin in graph.pinned if "the rule of operator elu does not fit (KeyError" in pin.reason} == {
        "first", "conv",
    }  # fmt: skip


def test_aliases_go_by_their_first_name():
    names = {piece.tensor.split(".")[0] for group in traced("aliased")[1].groups for piece in group.slices}
    assert names == {"first", "here", "last"}


def test_the_table_names_groups_and_pins():
    text = str(traced("softmax_over_channels")[1])
    assert "conv" in text
    assert "pinned: first [6]: softmax mixes all channels" in text
