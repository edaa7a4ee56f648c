"""What masked and smaller network return is compared whole, and nothing but rounding is forgiven."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from secateur.errors import GraphError
from secateur.prune.comparison import differences, tensors_of
from secateur.prune.trial import trace

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """``quiet`` is free; the width of ``counted`` is a number in the output, by which ``join`` says."""

    def __init__(self, join):
        super().__init__()
        self.join = join
        self.calls = 0
        self.quiet, self.counted = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.last, self.other = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 1, 1)

    def forward(self, x):
        self.calls += 1
        counted = self.counted(x).relu()
        return self.join(self.last(self.quiet(x).relu()), self.other(counted) * counted.shape[1], self.calls)


def groups_of(join):
    return {group.id for group in trace(Branches(join), IMAGE).groups}


def test_both_parts_of_a_complex_output_are_compared():
    assert groups_of(lambda first, second, _: torch.complex(first, second)) == {"quiet"}
    (real,) = tensors_of(torch.complex(torch.zeros(2), torch.ones(2)).conj())
    assert real.tolist() == [[0.0, -1.0]] * 2


@dataclass
class Result:
    logits: Tensor


class OwnDict(dict):
    pass


@pytest.mark.parametrize("wrap", [Result, lambda logits: OwnDict(logits=logits)])
def test_an_output_in_which_no_tensor_is_found_is_refused(wrap):
    with pytest.raises(ValueError, match="in which no tensor is found"):
        tensors_of(wrap(torch.zeros(1)))
    with pytest.raises(GraphError, match="no tensor is found; return a tensor, list, tuple or dict"):
        groups_of(lambda first, second, _: wrap(first + second))


def test_an_empty_output_is_equal_to_itself():
    assert groups_of(lambda first, second, _: (first, second, first.new_zeros(1, 0))) == {"quiet"}


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_nothing_is_close_to_what_is_not_finite(value):
    (found,) = differences([torch.tensor([value, 1.0])], [torch.tensor([3.0, 500.0])])
    assert not found.close


@pytest.mark.parametrize("drift", [0.0, 1e-4])
def test_a_network_that_drifts_from_call_to_call_is_not_forgiven_for_rounding(drift):
    assert groups_of(lambda first, second, calls: first + 1e-5 * second + drift * calls) == {"quiet"}


class CalmAndChaotic(nn.Module):
    """The tent map makes of rounding the whole of the second output; the first is as calm as any."""

    def __init__(self):
        super().__init__()
        self.calm, self.calm_last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 1, 1)
        self.first, self.second, self.last = nn.Conv2d(3, 700, 1), nn.Conv2d(700, 700, 1), nn.Conv2d(700, 1, 1)

    def forward(self, x):
        y = self.last(self.second(self.first(x).relu()).relu()).sigmoid()
        for _ in range(52):
            y = 1 - (2 * y - 1).abs()
        return self.calm_last(self.calm(x).relu()), y


def test_a_chaotic_output_says_nothing_of_a_calm_one():
    graph = trace(CalmAndChaotic(), IMAGE[..., :8, :8])
    assert {group.id for group in graph.groups} == {"calm"}
    chaotic = {pin.module for pin in graph.pinned if "the last bit of the inputs alone" in pin.reason}
    assert chaotic == {"first", "second"}
