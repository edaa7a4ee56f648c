"""The inputs that proofs run on: small, and such that rounding errors stay rounding errors."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from masking import halving
from secateur.graph.patch import minimal_patch
from secateur.graph.records import InputSpec
from secateur.graph.trace import trace_channels
from secateur.prune.surgery import remove_with_proof


class Deep(nn.Module):
    """Norms in a row, on maps that ``stride`` makes small: of two positions, one is nothing but a sign."""

    def __init__(self, depth, stride, norm=nn.BatchNorm2d, width=8, activation=nn.Identity):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=stride, padding=1)
        layers = [nn.Sequential(nn.Conv2d(width, width, 1), norm(width), activation()) for _ in range(depth)]
        self.middle = nn.Sequential(*layers)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class AtMostTwo(Deep):
    def forward(self, x):
        if len(x) > 2:
            raise ValueError("two scans at most")
        return super().forward(x)


def spec(side, batch=1):
    return (InputSpec((batch, 3, side, side), torch.float32),)


def patch_of(model, side, batch=1):
    return minimal_patch(model, spec(side, batch))[0].shape


def test_the_batch_grows_with_the_number_of_batch_norms_over_few_values():
    found = {
        (depth, stride): patch_of(Deep(depth, stride), 16)
        for depth, stride in ((1, 16), (2, 16), (20, 16), (60, 16), (20, 4))
    }
    assert found == {
        (1, 16): (2, 3, 8, 16),  # 316 is below ten thousand
        (2, 16): (4, 3, 8, 16),  # 2 ** 2
        (20, 16): (8, 3, 8, 16),  # 1.2 ** 20
        (60, 16): (16, 3, 8, 16),  # 1.08 ** 60
        (20, 4): (2, 3, 8, 16),  # 2 samples of 2 x 4 positions
    }


def test_the_sides_grow_where_a_larger_batch_does_not_help():
    assert patch_of(Deep(2, 8, nn.InstanceNorm2d), 64) == (2, 3, 16, 16)  # four positions: 2 ** 2
    assert patch_of(Deep(20, 8, nn.InstanceNorm2d), 64) == (2, 3, 16, 32)  # not 2 ** 20
    assert patch_of(Deep(20, 8, lambda width: nn.GroupNorm(width, width)), 64) == (2, 3, 16, 32)
    assert patch_of(Deep(20, 8, lambda width: nn.GroupNorm(2, width)), 64) == (2, 3, 8, 16)  # four channels each


def test_what_is_large_enough_or_refused_stays():
    assert patch_of(Deep(20, 16), 16, batch=12) == (12, 3, 8, 16)
    assert patch_of(AtMostTwo(20, 16), 16) == (2, 3, 16, 16)


@pytest.mark.slow
def test_without_these_samples_rounding_errors_are_beyond_the_fixed_tolerance():
    """50 norms in a row: over four values each, an error of 1e-16 grows until the proof has to measure rounding."""
    torch.manual_seed(0)
    model = Deep(50, 16, width=32, activation=nn.ReLU)
    graph = trace_channels(model, torch.zeros(1, 3, 16, 16))
    four = replace(graph, patch=(InputSpec((4, 3, 8, 16), torch.float32),))
    over_four, enough = (remove_with_proof(model, of, halving(of))[1] for of in (four, graph))
    assert over_four.noise > 0
    assert over_four.max_rel_diff > 1e-9
    assert enough.passed
    assert enough.noise == 0
