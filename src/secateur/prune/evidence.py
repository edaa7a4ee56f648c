"""What a criterion may look at: batches and a loss, handed over by the caller, and the scores it makes of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secateur.graph.records import GroupId

Batch = tuple[Any, Any]  # (what the network is called with: a tensor or a tuple of them; target: as the loss likes)
Loss = Callable[[Any, Any], Tensor]  # (main output, target) -> () or (N,)


@dataclass(frozen=True)
class Evidence:
    """Batches of ``(args, target)`` and the loss that compares the network's output with ``target``.

    Attributes:
        batches: read once, from start to end; any number of samples.
        loss: ``loss(output, target)`` returns one value per sample ``(N,)``, or their mean or sum ``()``. A sample's
            value must not depend on the others (no batch Dice). None where the criterion needs no labels.
    """

    batches: Iterable[Batch]
    loss: Loss | None = None


class Scores(dict[GroupId, Tensor]):
    """Per group float64 ``(C_g,)`` on the CPU, higher = keep, with what they were made from."""

    def __init__(self, scores: Mapping[GroupId, Tensor], *, samples: int = 0, zero_gradients: int = 0) -> None:
        super().__init__(scores)
        self.samples = samples
        self.zero_gradients = zero_gradients
