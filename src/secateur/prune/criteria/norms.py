"""Magnitude of a unit's own filters, relative to its group."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.graph.records import ChannelGraph, ChannelGroup, Role
from secateur.graph.tensors import named_tensors
from secateur.prune.criteria.criterion import Criterion
from secateur.prune.evidence import Evidence, Scores

_ROWS = 32  # filters widened to float64 at a time


@dataclass(frozen=True)
class L1Norm(Criterion):
    """Sum of absolute values of the filters that write a unit, divided by the mean over its group.

    Source: Li et al., 2017 (PFEC), with the division so that groups compare in a global ranking: raw norms grow with
    a layer's fan-in. Scores do not change when all filters of a group are scaled together.
    """

    def score(self, model: nn.Module, graph: ChannelGraph, evidence: Evidence | None = None) -> Scores:
        """Score all groups from the weights alone; a group of zero filters scores zero."""
        return Scores({group.id: _relative(_powers(model, group, 1)) for group in graph.groups})


@dataclass(frozen=True)
class L2Norm(Criterion):
    """Euclidean norm of the filters that write a unit, divided by the mean over its group: see `L1Norm`."""

    def score(self, model: nn.Module, graph: ChannelGraph, evidence: Evidence | None = None) -> Scores:
        """Score all groups from the weights alone; a group of zero filters scores zero."""
        return Scores({group.id: _relative(_powers(model, group, 2).sqrt()) for group in graph.groups})


def _powers(model: nn.Module, group: ChannelGroup, power: int) -> Tensor:
    """Per unit, the sum of |w|^power over every weight that writes it, ``(C_g,)``."""
    sums = torch.zeros(group.width, dtype=torch.float64)
    tensors = named_tensors(model)
    for piece in group.slices:
        if piece.role is Role.WRITE and piece.tensor in tensors:
            kernel = tensors[piece.tensor].detach().movedim(piece.dim, 0)
            for first in range(0, len(piece.positions), _ROWS):  # so that float64 takes no second network
                some = slice(first, first + _ROWS)
                filters = kernel[list(piece.positions[some])].flatten(1).double().cpu()
                sums.index_add_(0, torch.tensor(piece.units[some]), filters.abs().pow(power).sum(1))
    return sums


def _relative(values: Tensor) -> Tensor:
    mean = values.mean()
    return values / mean if mean > 0 else values
