"""What is a group, and what is not one because it could never lose a channel."""

import pytest
import torch
from torch import nn

from networks import traced
from secateur.graph.describe import table
from secateur.prune.removal_record import removal_record
from secateur.prune.trial import trace


class Inseparable(nn.Module):
    """One norm over all channels of ``first``, one channel of ``gate``, six free ones of ``conv``."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(1, 4)
        self.conv, self.gate, self.last = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 1, 1), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        x = self.conv(torch.relu(self.norm(self.first(x))))
        return self.last(x * torch.sigmoid(self.gate(x)))


def test_channels_that_leave_together_or_not_at_all_say_so():
    graph = trace(Inseparable(), torch.randn(1, 3, 8, 8))
    assert {group.id: group.width for group in graph.groups} == {"conv": 6, "gate": 1}
    assert {(pin.module, pin.channels): pin.reason for pin in graph.pinned} == {
        ("first", 4): "these channels can only leave all at once, which empties the group",
        ("last", 1): "network output (seen in last)",
    }


COUNTED = {  # units, channels of the module that writes them, channels of a unit where it is fewest
    "residual": {"first": (6, 6, 1)},
    "group_normed": {"first": (3, 6, 2)},
    "grouped": {"first": (3, 6, 2), "grouped": (4, 8, 2)},  # one channel of each of two convolution groups
    "transposed_grouped": {"first": (3, 6, 2), "up": (2, 4, 2)},
    "depthwise_multiplier": {"first": (6, 6, 1)},
    "pixel_shuffled": {"up": (2, 8, 1)},  # filters of four, of which one map is left
    "fused_attention": {"qkv": (3, 18, 2)},  # heads of two features, each as query, key and value
    "flattened": {"conv": (None, None, 1)},
}


@pytest.mark.parametrize("name", COUNTED)
def test_units_are_counted_in_channels(name):
    graph = traced(name)[1]
    for group, (units, channels, fewest) in COUNTED[name].items():
        found = graph.group(group)
        assert found.unit_channels == fewest
        assert units is None or (found.width, found.channels) == (units, channels)


@pytest.mark.parametrize("name", ["group_normed", "grouped", "transposed_grouped", "fused_attention"])
def test_channels_that_stay_are_counted_too(name):
    graph = traced(name)[1]
    small = graph.keep({group.id: (0, group.width - 1) for group in graph.groups})
    rows = removal_record(graph, small)["groups"]
    for before, after, row in zip(graph.groups, small.groups, rows, strict=True):
        assert after.unit_channels == before.unit_channels
        assert row["kept"] * before.width == 2 * before.channels
        assert (row["width"], row.get("units", row["width"])) == (before.channels, before.width)


def test_the_table_shows_units_beside_channels_where_they_differ():
    first, *rows = table(traced("grouped")[1]).splitlines()
    assert first.split()[:2] == ["group", "channels"]
    assert [row.split()[:4] for row in rows[:2]] == [["first", "6", "(3", "units)"], ["grouped", "8", "(4", "units)"]]
    assert "units" not in table(traced("residual")[1])


@pytest.mark.parametrize(
    ("last", "channels"),
    [(nn.ConvTranspose2d(6, 4, 2, groups=2), 4), (nn.ConvTranspose2d(6, 12, 2, groups=6), 12), (nn.Conv2d(6, 3, 1), 3)],
)
def test_pins_count_what_a_layer_writes(last, channels):
    graph = trace(nn.Sequential(nn.Conv2d(3, 6, 1), last), torch.zeros(1, 3, 8, 8))
    assert {pin.module: pin.channels for pin in graph.pinned}["1"] == channels
