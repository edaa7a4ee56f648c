"""Means over cases with their 95 % intervals: as a record has them, or of two records paired by case."""

from dataclasses import dataclass

import numpy as np

from secateur.metrics.aggregate import Summary, summarize_difference
from secateur.records import Record
from secateur.report import rounding


@dataclass(frozen=True)
class Interval:
    """A mean over cases with its 95 % interval; ``cases`` is how many are defined, two or more."""

    mean: float
    low: float
    high: float
    cases: int

    @classmethod
    def of(cls, summary: Summary) -> "Interval | None":
        """The interval of a summary; None with fewer than two defined cases."""
        return cls(summary.mean, *summary.ci95, summary.n) if summary.n > 1 else None


def recorded_interval(metric: Record) -> Interval | None:
    """One of ``metrics`` of an evaluation; None with fewer than two defined cases."""
    low, high = metric["ci95"]
    return Interval(metric["mean"], low, high, metric["n"]) if metric["n"] > 1 else None


def paired_difference(dense: Record, pruned: Record, *, metric: str) -> Interval | None:
    """Mean of pruned minus dense, case by case, with its 95 % interval.

    Paired bootstrap over the cases where both are defined. It carries the spread between cases, not that
    between trainings. None with fewer than two such cases.

    Args:
        dense: an ``evaluation.json`` record.
        pruned: another one, of the same cases in any order.
        metric: key of the cases.
    """
    before = {case["id"]: case[metric] for case in dense["cases"]}
    pairs = np.array([(before[case["id"]], case[metric]) for case in pruned["cases"]], dtype=np.float64)
    first, second = pairs.T.tolist()  # undefined (null) is NaN
    return Interval.of(summarize_difference(first, second))


def interval_text(interval: Interval | None, *, signed: bool = False, digits: int = 3) -> str:
    """Mean and bounds; empty for None."""
    if interval is None:
        return ""
    write = rounding.signed if signed else rounding.score
    low, high = write(interval.low, digits), write(interval.high, digits)
    return f"{write(interval.mean, digits)} [{low}, {high}]"
