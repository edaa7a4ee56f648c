"""First-order Taylor scores with gradient-normalised back-propagation, for all groups in one backward pass."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.errors import EvidenceError
from secateur.graph.copying import safe_copy
from secateur.graph.records import ChannelGraph, GroupId
from secateur.prune.criteria.criterion import Criterion
from secateur.prune.evidence import Batch, Evidence, Loss, Scores, Tally, tallied
from secateur.prune.processes import number_among_all
from secateur.prune.reads import ReadSite, contributions, unit_terms

_COUPLING_TOLERANCE = 1e-3  # of the gradient's norm; float32 rounding is a thousand times smaller


class TaylorMode(Enum):
    """What is made of a sample's predicted change before the mean over samples is taken."""

    SIGNED = "signed"  # predicted increase of the loss when the unit leaves
    ABSOLUTE = "absolute"
    SQUARED = "squared"


class OutputGradient(ABC):
    """Where the gradient that is propagated back from the network's main output comes from."""

    name: str

    @abstractmethod
    def of(self, output: Tensor, target: Any, *, loss: Loss | None, first: int) -> Tensor:
        """The gradient at ``output``, same shape, one independent entry per sample; ``first`` counts earlier ones."""


class LossGradient(OutputGradient):
    """The gradient of each sample's own task loss."""

    name = "loss"

    def of(self, output: Tensor, target: Any, *, loss: Loss | None, first: int) -> Tensor:
        """Gradient of the sum over samples of their losses.

        Raises:
            EvidenceError: there is no loss, or it couples samples.
        """
        if loss is None:
            raise EvidenceError(
                "TaylorFirstOrder needs a loss; give Evidence(batches, loss), or use RandomGradient(), "
                "which needs no labels."
            )
        alone = torch.cat(
            [_gradient(loss, output[i : i + 1], _sample(target, i, len(output))) for i in range(len(output))]
        )
        if len(output) > 1 and bool(alone.isfinite().all()):
            _refuse_coupling(_gradient(loss, output, target), alone)
        return alone


@dataclass(frozen=True)
class RandomGradient(OutputGradient):
    """Seeded normal noise in place of a loss gradient: needs no labels. Sample i gets the same noise in any batch."""

    seed: int = 0
    name = "random"

    def of(self, output: Tensor, target: Any, *, loss: Loss | None, first: int) -> Tensor:
        """Independent standard normal values."""
        noise = torch.empty(output.shape, dtype=torch.float64)
        for index, sample in enumerate(noise, start=first):
            mixed = int(np.random.SeedSequence((self.seed, number_among_all(index))).generate_state(1)[0])
            sample.normal_(generator=torch.Generator().manual_seed(mixed))
        return noise.to(output)


@dataclass(frozen=True)
class TaylorFirstOrder(Criterion):
    """Score = mean over samples of f(predicted change of the back-propagated scalar when the unit leaves).

    For sample n and unit i, the change is minus the sum over all reads of the unit and over all positions of
    activation times gradient; f is the identity, the absolute value or the square. Terms of all reads are added
    first. The sum over positions, not their mean, makes layers of different resolution comparable.

    Source: first-order Taylor pruning (Molchanov et al., 2017; 2019) with gradient normalisation and random
    gradients as in the line of work on gradient-normalised pruning for classification (I_i = mean_n (x dx)^2) and for
    polyp segmentation (arXiv 2306.13203). Deviations: activations are taken where consumers read them; the
    norm has no additive epsilon (``docs/decisions/0004``).

    Attributes:
        mode: f. ``SIGNED`` is refused with random gradients, whose mean change is zero.
        normalize_gradient: scale each sample's gradient at the main output, flattened, to L2 norm 1, so that
            well-fitted samples vote as much as others. A sample whose gradient is zero contributes zero, counted.
        gradient: of the task loss, or random.

    Cost: one forward and one backward pass per batch, without gradients of weights.
    """

    mode: TaylorMode = TaylorMode.SQUARED
    normalize_gradient: bool = True
    gradient: OutputGradient = field(default_factory=LossGradient)

    def __post_init__(self) -> None:
        if self.mode is TaylorMode.SIGNED and isinstance(self.gradient, RandomGradient):
            raise EvidenceError(
                "signed Taylor scores with random gradients mean nothing; use TaylorMode.SQUARED or ABSOLUTE."
            )

    @torch.inference_mode(False)
    def score(self, model: nn.Module, graph: ChannelGraph, evidence: Evidence | None = None) -> Scores:
        """Score all groups. The network is copied and run in eval mode; the main output is the first tensor.

        Raises:
            EvidenceError: no batches, no loss, a loss that couples samples, or gradients that are not finite.
        """
        if evidence is None:
            raise EvidenceError("TaylorFirstOrder needs evidence; give Evidence(batches, loss).")
        if not graph.groups:
            return Scores({})
        twin = safe_copy(model).eval().requires_grad_(False)
        twin.zero_grad(set_to_none=True)
        tally = tallied(lambda: self._tally(twin, graph, evidence))
        if tally.samples == tally.zero_gradients:
            raise EvidenceError(
                f"all {tally.samples} samples give a zero gradient at the output; "
                f"give at least one batch on which the loss is not flat."
            )
        means = {group: total / tally.samples for group, total in tally.totals.items()}
        return Scores(means, samples=tally.samples, zero_gradients=tally.zero_gradients)

    def _tally(self, twin: nn.Module, graph: ChannelGraph, evidence: Evidence) -> Tally:
        """Add up the terms of this process's samples."""
        totals = {group.id: torch.zeros(group.width, dtype=torch.float64) for group in graph.groups}
        samples = zeros = 0
        for arguments, target in evidence.batches:
            terms, zero = self._batch_terms(twin, graph, (arguments, target), loss=evidence.loss, first=samples)
            for group, change in terms.items():
                totals[group] += self._of_change(change).sum(0).cpu()
            samples += next(iter(terms.values())).shape[0]
            zeros += zero
        return Tally(totals, samples, zeros)

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values, and those of the gradient, such as its seed."""
        return {**super().settings(), **vars(self.gradient)}

    def _of_change(self, change: Tensor) -> Tensor:
        if self.mode is TaylorMode.SIGNED:
            return change
        return change.abs() if self.mode is TaylorMode.ABSOLUTE else change.square()

    def _batch_terms(
        self, twin: nn.Module, graph: ChannelGraph, batch: Batch, *, loss: Loss | None, first: int
    ) -> tuple[dict[GroupId, Tensor], int]:
        """The predicted changes ``(N, C_g)`` of one batch, and how many samples had no gradient."""
        arguments, target = batch
        widths = {group.id: group.width for group in graph.groups}
        changes: dict[GroupId, Tensor] = {}

        def report(site: ReadSite, terms: Tensor) -> None:
            for group in {name for name, _, _ in site.pieces}:
                change = -unit_terms(site, terms.double(), group, widths[group])
                changes[group] = changes[group] + change if group in changes else change

        with torch.enable_grad(), contributions(twin, graph, report):
            output = main_output(twin(*(arguments if isinstance(arguments, tuple) else (arguments,))))
        gradient = self.gradient.of(output.detach(), target, loss=loss, first=first)
        norms = gradient.flatten(1).norm(dim=1)
        if not bool(torch.isfinite(norms).all()):
            raise EvidenceError("the gradient at the network's output is not finite; check the weights and the loss.")
        if self.normalize_gradient:
            safe = torch.where(norms > 0, norms, torch.ones_like(norms))
            gradient = gradient / safe.reshape(-1, *[1] * (gradient.ndim - 1))
        if output.requires_grad:  # not where the main output reads no group
            torch.autograd.backward(output, gradient)
        unread = {group: output.new_zeros((len(output), width), dtype=torch.float64)
                  for group, width in widths.items() if group not in changes}  # fmt: skip
        return changes | unread, int((norms == 0).sum())


def main_output(output: Any) -> Tensor:
    """The first tensor of what a network returns: the finest head of those with deep supervision.

    Raises:
        EvidenceError: the network returns no tensor.
    """
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            return leaf
    raise EvidenceError(f"the network returns {type(output).__name__} without any tensor; return its logits.")


def _gradient(loss: Loss, output: Tensor, target: Any) -> Tensor:
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(leaf, target)
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient


def _sample(target: Any, index: int, batch: int) -> Any:
    """Entry ``index`` of every tensor in ``target`` whose first dimension is the batch."""
    return pytree.tree_map(
        lambda leaf: (
            leaf[index : index + 1] if isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == batch else leaf
        ),
        target,
    )


def _refuse_coupling(together: Tensor, alone: Tensor) -> None:
    """A loss over the batch must be the same multiple (its mean or sum) of the samples' own losses."""
    together, alone = together.double().flatten(), alone.double().flatten()
    factor = (together @ alone) / max(float(alone @ alone), 1e-300)
    apart = float((together - factor * alone).norm() / max(float(together.norm()), 1e-300))
    if not apart <= _COUPLING_TOLERANCE:
        raise EvidenceError(
            f"the loss couples the samples of a batch: their gradients together differ by {apart:.1%} from those of "
            f"each sample alone. Give a loss that treats each sample by itself, such as Dice per image, not per batch."
        )
