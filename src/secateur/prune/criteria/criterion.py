"""What every criterion is: an object that scores the units of every group."""

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from secateur.graph.records import ChannelGraph
from secateur.prune.evidence import Evidence, Scores


class Criterion(ABC):
    """Scores channels; higher = keep. Subclasses are final and their fields are their settings."""

    @abstractmethod
    def score(self, model: nn.Module, graph: ChannelGraph, evidence: Evidence | None = None) -> Scores:
        """Score every unit of every group of ``graph``; ``model`` is untouched.

        Raises:
            EvidenceError: the criterion needs evidence, or cannot use what it was given.
        """

    def settings(self) -> dict[str, Any]:
        """The criterion's fields as JSON values, for records."""
        return {name: getattr(value, "name", value) for name, value in vars(self).items()}
