"""What the trial after tracing finds when it removes all groups at once."""

import pytest
import torch
from torch import nn

from secateur.prune import trial
from secateur.prune.trial import Trial, trace


class SameWidths(nn.Module):
    """Two widths that only fit while they are the same, which no operator shows."""

    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, width, 1), nn.Conv2d(3, width, 1)
        self.left_out, self.right_out = nn.Conv2d(width, 1, 1), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        if left.shape[1] != right.shape[1]:
            raise ValueError("not the same width")
        return self.left_out(left) + self.right_out(right)


class Chain(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, 1, 1)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("width", [2, 6, 7, 8, 16, 33])
def test_widths_that_only_fit_together_are_found(width):
    graph = trace(SameWidths(width), torch.zeros(1, 3, 8, 8))
    assert not graph.groups
    reasons = {pin.module: pin.reason for pin in graph.pinned}
    assert "not the same width" in reasons["left"]
    assert "not the same width" in reasons["right"]


@pytest.mark.parametrize(("width", "removals"), [(4, 3), (7, 3), (8, 1), (32, 1)])
def test_wide_groups_are_tried_once(width, removals, monkeypatch):
    tried, right = [], Trial.disagreement

    def counted(self, groups):
        tried.append([group.id for group in groups])
        return right(self, groups)

    monkeypatch.setattr(trial.Trial, "disagreement", counted)
    graph = trace(Chain(width), torch.zeros(1, 3, 8, 8))
    assert len(graph.groups) == 3
    assert len(tried) == removals
    assert {group for groups in tried[1:] for group in groups} == set(tried[0] if removals > 1 else [])


@pytest.mark.parametrize("width", range(2, 40))
@pytest.mark.parametrize("number", [0, 1])
def test_halves_and_parities_lose_different_numbers(width, number):
    kept = trial._tried(width, number)
    gone = set(range(width)) - set(kept)
    assert gone
    assert kept
    assert all(unit < width / 2 for unit in gone)
    even = sum(unit % 2 == 0 for unit in gone)
    assert even != len(gone) - even
    if width >= 8:
        assert len(kept) != len(trial._tried(width, 1 - number))


class Block(nn.Module):
    def __init__(self, fixed):
        super().__init__()
        self.inner, self.back, self.fixed = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), fixed

    def forward(self, x):
        inner = self.inner(x)
        if self.fixed and inner.shape[1] != 8:
            raise ValueError("not 8 wide")
        return x + self.back(inner)


class Blocks(nn.Module):
    """Blocks in which a width hides in a number, then blocks of the same names in which none does."""

    def __init__(self, fixed, free):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1)
        self.blocks = nn.Sequential(*(Block(number < fixed) for number in range(fixed + free)))

    def forward(self, x):
        return self.last(self.blocks(self.first(x)))


@pytest.mark.parametrize(("fixed", "free", "most"), [(12, 0, 16), (3, 9, 8), (0, 12, 1)])
def test_groups_of_one_kind_are_found_one_after_the_other(fixed, free, most, monkeypatch):
    tried, right = [], Trial.disagreement
    monkeypatch.setattr(Trial, "disagreement", lambda self, groups: tried.append(groups) or right(self, groups))
    graph = trace(Blocks(fixed, free), torch.zeros(1, 3, 8, 8))
    assert {pin.module for pin in graph.pinned if "8 wide" in pin.reason} == {
        f"blocks.{number}.inner" for number in range(fixed)
    }
    assert {group.id for group in graph.groups} == {"first", *(f"blocks.{fixed + k}.inner" for k in range(free))}
    assert len(tried) <= most
