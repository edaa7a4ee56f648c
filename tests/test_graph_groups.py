"""What is a group, and what is not one because it could never lose a channel."""

import torch
from torch import nn

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
