"""What a criterion may look at: batches and a loss, handed over by the caller, and the scores it makes of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.errors import EvidenceError
from secateur.graph.records import GroupId
from secateur.prune.processes import in_every_process

Batch = tuple[Any, Any]  # (what the network is called with: a tensor or a tuple of them; target: as the loss likes)
Loss = Callable[[Any, Any], Tensor]  # (main output, target) -> () or (N,)


@dataclass(frozen=True)
class Evidence:
    """Batches of ``(args, target)`` and the loss that compares the network's output with ``target``.

    Under torch.distributed every process gives batches of its own and gets the scores of all samples together.

    Attributes:
        batches: read once, from start to end; any number of samples.
        loss: ``loss(output, target)`` returns one value per sample ``(N,)``, or their mean or sum ``()``. A sample's
            value must not depend on the others (no batch Dice). None where the criterion needs no labels.
    """

    batches: Iterable[Batch]
    loss: Loss | None = None


class Scores(dict[GroupId, Tensor]):
    """Per group float64 ``(C_g,)`` on the CPU, higher = keep, with what they were made from.

    Raises:
        EvidenceError: a score is not finite; the message names its group.
    """

    def __init__(self, scores: Mapping[GroupId, Tensor], *, samples: int = 0, zero_gradients: int = 0) -> None:
        super().__init__(scores)
        for group, values in scores.items():
            if not bool(torch.isfinite(values).all()):
                raise EvidenceError(f"scores of group {group!r} are not finite; check the weights and the batches.")
        self.samples = samples
        self.zero_gradients = zero_gradients


@dataclass(frozen=True)
class Tally:
    """Sums over samples, from which a criterion makes the mean that it scores by.

    Attributes:
        totals: per group float64 ``(C_g,)`` on the CPU, the sum over samples of a term of each unit.
        samples: how many there were.
        zero_gradients: how many of them contributed nothing, because their gradient is zero.
    """

    totals: Mapping[GroupId, Tensor]
    samples: int
    zero_gradients: int


def tallied(count: Callable[[], Tally]) -> Tally:
    """The sum of what ``count`` gives in every process: the same to the last bit everywhere."""
    tallies = in_every_process(count)
    totals = {group: torch.stack([tally.totals[group] for tally in tallies]).sum(0) for group in tallies[0].totals}
    return Tally(totals, sum(tally.samples for tally in tallies), sum(tally.zero_gradients for tally in tallies))
