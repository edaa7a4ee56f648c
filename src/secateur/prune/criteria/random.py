"""Chance: the baseline that every criterion has to beat."""

from dataclasses import dataclass

import torch
from torch import nn

from secateur.graph.records import ChannelGraph
from secateur.prune.criteria.criterion import Criterion
from secateur.prune.evidence import Evidence, Scores


@dataclass(frozen=True)
class Random(Criterion):
    """Independent uniform scores in [0, 1), so that a global ranking spreads the cut over all groups.

    Attributes:
        seed: the same seed gives the same scores for the same graph.
    """

    seed: int = 0

    def score(self, model: nn.Module, graph: ChannelGraph, evidence: Evidence | None = None) -> Scores:
        """Draw a score for every unit."""
        generator = torch.Generator().manual_seed(self.seed)
        return Scores(
            {group.id: torch.rand(group.width, generator=generator, dtype=torch.float64) for group in graph.groups}
        )
