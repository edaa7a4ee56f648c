"""How far a network can be compressed before an output loses more than a tolerance, beside a published answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from secateur.metrics.aggregate import summarize_difference
from secateur.report.intervals import Interval
from secateur.report.quantities import AJI, CORRELATION, INSTANCE_DICE, MSE, PQ, SEMANTIC_DICE, Quantity
from secateur.report.sweeps.pooling import Phase
from secateur.report.sweeps.ratios.results import Line, RatioSweep

TOLERANCE = 0.02
# Layer-wise, arXiv 2206.07422: its abstract gives them for the outputs of the two branches and for the nuclei, and does
# not say by which metric.
PUBLISHED = {SEMANTIC_DICE: 16, CORRELATION: 20, MSE: 20, AJI: 5, PQ: 5, INSTANCE_DICE: 5}
SHARES = (SEMANTIC_DICE, CORRELATION, AJI, PQ, INSTANCE_DICE)  # at most 1, so that a loss of 0.02 is 2 % of the scale


@dataclass(frozen=True)
class Loss:
    """What one ratio costs against `RatioSweep.reference` of the same seeds; a gain is negative.

    Attributes:
        ratio: the compression.
        absolute: mean over seeds and cases, in the metric's own unit, worse is positive; NaN where no case is defined.
        interval: the same with its bounds over cases, paired; None with fewer than two cases.
        reference: mean of the reference over the same cases.
        seeds: dense trainings that it is averaged over.
        undefined: cases that the reference has a value for and this one has not, in some seed.
    """

    ratio: float
    absolute: float
    interval: Interval | None
    reference: float
    seeds: int
    undefined: int

    @property
    def relative(self) -> float | None:
        """The loss over the reference; None where that is not above zero."""
        return self.absolute / self.reference if self.reference > 0 else None

    def below(self, amount: float | None) -> bool:
        """Whether ``amount``, one of the losses, is under the tolerance; never where cases became undefined."""
        return amount is not None and not self.undefined and amount < TOLERANCE


@dataclass(frozen=True)
class Limit:
    """The largest ratio under the tolerance, of those tested.

    Attributes:
        unbroken: the largest such that it and every smaller one tested stay under; None if the smallest does not.
        plain: the largest that stays under, whatever smaller ones do; None if none does.
        broken: the smallest ratio tested that does not stay under; None if all do.
    """

    unbroken: Loss | None
    plain: Loss | None
    broken: Loss | None


def losses(sweep: RatioSweep, line: Line, label: str, phase: Phase, quantity: Quantity) -> list[Loss]:
    """What every ratio of ``line`` costs that shares a seed and a defined case with the reference, smallest first."""
    reference = sweep.values(sweep.reference(phase), label, phase, quantity)
    found = []
    for ratio in sweep.ratios(line):
        values = sweep.values((line, ratio), label, phase, quantity)
        seeds = [seed for seed in values if seed in reference]
        if not seeds:
            continue
        before, after = (np.mean([side[seed] for seed in seeds], axis=0) for side in (reference, values))
        known = ~np.isnan(before)
        if not known.any():
            continue
        worse = (before, after) if quantity.lower_is_better else (after, before)
        summary = summarize_difference(*(cast(list[float], side.tolist()) for side in worse))
        both = known & ~np.isnan(after)
        level = float(before[both if both.any() else known].mean())
        undefined = int((known & np.isnan(after)).sum())
        found.append(Loss(ratio, summary.mean, Interval.of(summary), level, len(seeds), undefined))
    return found


def relative_limit(found: Sequence[Loss]) -> Limit:
    """The limit for a loss of 2 % of the reference's mean."""
    return _limit(found, lambda loss: loss.below(loss.relative))


def absolute_limit(found: Sequence[Loss]) -> Limit:
    """The limit for a loss of 0.02 in the metric itself."""
    return _limit(found, lambda loss: loss.below(loss.absolute))


def _limit(found: Sequence[Loss], stays: Callable[[Loss], bool]) -> Limit:
    ordered = sorted(found, key=lambda loss: loss.ratio)
    broken = next((loss for loss in ordered if not stays(loss)), None)
    under = [loss for loss in ordered if stays(loss)]
    before = [loss for loss in under if broken is None or loss.ratio < broken.ratio]
    return Limit(unbroken=before[-1] if before else None, plain=under[-1] if under else None, broken=broken)
