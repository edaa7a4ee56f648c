"""Every group keeps the same share of its units: pruning without a choice between layers."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph.records import ChannelGraph
from secateur.prune.criteria.criterion import Criterion
from secateur.prune.criteria.norms import L2Norm
from secateur.prune.evidence import Evidence, Scores


@dataclass(frozen=True)
class UniformWidth(Criterion):
    """Replace the scores of ``within`` by their rank inside the group, divided by its width.

    A global ranking of these removes the same share of every group; ``within`` decides only which units.
    """

    within: Criterion = field(default_factory=L2Norm)

    def score(self, model: nn.Module, graph: ChannelGraph, evidence: Evidence | None = None) -> Scores:
        """Score all groups in (0, 1]; among equal inner scores the higher index ranks lower."""
        inner = self.within.score(model, graph, evidence)
        ranked = Scores({group: _ranks(values) for group, values in inner.items()})
        ranked.samples, ranked.zero_gradients = inner.samples, inner.zero_gradients
        return ranked

    def settings(self) -> dict[str, Any]:
        """The inner criterion by name, with its settings."""
        return {"within": type(self.within).__name__, **self.within.settings()}


def _ranks(values: Tensor) -> Tensor:
    width = len(values)
    ascending = sorted(range(width), key=lambda unit: (float(values[unit]), -unit))
    ranks = torch.empty(width, dtype=torch.float64)
    ranks[ascending] = torch.arange(1, width + 1, dtype=torch.float64) / width
    return ranks
