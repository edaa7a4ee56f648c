"""What is measured of one tile of nuclei, and the record of several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import final

import numpy as np
import numpy.typing as npt

from secateur.data.cases import CaseId, MaskArray
from secateur.data.instances import LabelArray
from secateur.metrics.aggregate import summarize
from secateur.metrics.fates import Fates, fates
from secateur.metrics.instance import instance_overlaps, instance_scores
from secateur.metrics.overlap import overlap
from secateur.metrics.regression import regression_scores
from secateur.records import Record

_FATES = ("kept", "merged", "split", "lost")


@final
@dataclass(frozen=True)
class Seconds:
    """Wall time of one case, step by step; what is written to disk is not counted."""

    read: float
    network: float
    merge: float
    metrics: float


@final
@dataclass(frozen=True)
class NucleiResult:
    """One case.

    Attributes:
        id: of the case.
        metrics: by name; NaN is undefined.
        counts: nuclei of the truth (``total``) by fate, ``found`` ones, and the ``spurious`` of them.
        cut: of the nuclei that the dense network kept (``kept_by_dense``), those that fare worse now; None for the
            dense network itself.
    """

    id: CaseId
    metrics: Mapping[str, float]
    counts: Mapping[str, int]
    cut: Mapping[str, int] | None

    def record(self) -> Record:
        """Return the JSON form, NaN as null."""
        values = {name: None if math.isnan(value) else value for name, value in self.metrics.items()}
        return {"id": self.id, **values, "nuclei": {**self.counts, **(self.cut or {})}}


def measure(
    case_id: CaseId,
    *,
    found: LabelArray,
    mask: MaskArray,
    distance: npt.NDArray[np.float32],
    target: npt.NDArray[np.float32],
    truth: LabelArray,
    dense: LabelArray | None,
) -> NucleiResult:
    """Measure the mask, the distances and the nuclei of one case; all arrays are ``(H, W)``.

    Args:
        case_id: of the case.
        found: nuclei of the two branches together.
        mask: of the semantic branch alone, before any cleaning.
        distance: of the regression branch.
        target: true distances.
        truth: true nuclei.
        dense: nuclei that the network before the cut had found; None for that network itself.
    """
    nuclei = truth > 0
    semantic = overlap(mask, nuclei)
    distances = regression_scores(distance, target, inside=nuclei)
    overlaps = instance_overlaps(found, truth)
    scores, now = instance_scores(overlaps), fates(overlaps)
    return NucleiResult(
        id=case_id,
        metrics={
            "semantic_dice": semantic.dice,
            "semantic_iou": semantic.iou,
            "distance_mse": distances.mse,
            "distance_correlation": distances.correlation,
            "aji": scores.aji,
            "pq": scores.pq,
            "dq": scores.dq,
            "sq": scores.sq,
            "f1": scores.f1,
            "instance_dice": scores.dice,
        },
        counts={
            "total": overlaps.true_labels.size,
            **{fate: int(getattr(now, fate).size) for fate in _FATES},
            "found": overlaps.found_labels.size,
            "spurious": int(now.spurious.size),
        },
        cut=None if dense is None else _cut(fates(instance_overlaps(dense, truth)), now),
    )


def summary(results: Sequence[NucleiResult], times: Sequence[Seconds]) -> Record:
    """Return the part of `evaluation.json` that is about the cases and what they sum up to."""
    names = list(results[0].metrics)
    counts = [{**result.counts, **(result.cut or {})} for result in results]
    return {
        "metrics": {name: summarize([result.metrics[name] for result in results]).record() for name in names},
        "cases": [result.record() for result in results],
        "nuclei": {name: sum(count[name] for count in counts) for name in counts[0]},
        "seconds": {
            step.name: float(np.mean([getattr(each, step.name) for each in times])) for step in fields(Seconds)
        },
    }


def _cut(before: Fates, now: Fates) -> dict[str, int]:
    worse = {fate: int(np.isin(before.kept, getattr(now, fate)).sum()) for fate in _FATES[1:]}
    return {"kept_by_dense": before.kept.size, **{f"{fate}_by_cut": count for fate, count in worse.items()}}
