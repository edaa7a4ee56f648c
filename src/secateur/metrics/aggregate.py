"""From values per case to a mean with its spread and interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000


@final
@dataclass(frozen=True)
class Summary:
    """Mean over the cases with a defined value.

    Attributes:
        mean: arithmetic mean; NaN without a defined case.
        std: sample standard deviation over cases (n - 1); NaN with fewer than two defined cases.
        ci95: bootstrap interval of the mean; NaN with fewer than two defined cases.
        n: number of defined cases.
        undefined: number of cases left out because their value is NaN.
    """

    mean: float
    std: float
    ci95: tuple[float, float]
    n: int
    undefined: int

    def record(self) -> dict[str, float | list[float | None] | None]:
        """Return the JSON form, NaN as null."""
        return {
            "mean": _or_none(self.mean),
            "std": _or_none(self.std),
            "ci95": [_or_none(bound) for bound in self.ci95],
            "n": self.n,
            "undefined": self.undefined,
        }


def summarize(values: Sequence[float] | npt.NDArray[np.float64], *, seed: int = 0) -> Summary:
    """Summarize one value per case; NaN is undefined, left out and counted.

    The interval is the percentile bootstrap over cases (Efron 1979): 2.5th and 97.5th percentile of the mean
    of `RESAMPLES` samples with replacement, drawn with ``seed``.
    """
    given = np.asarray(values, dtype=np.float64)
    defined = given[~np.isnan(given)]
    n = defined.size
    if n < 2:
        mean = float(defined[0]) if n else math.nan
        return Summary(mean, math.nan, (math.nan, math.nan), n, given.size - n)
    picks = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    low, high = np.percentile(defined[picks].mean(axis=1), (2.5, 97.5))
    return Summary(float(defined.mean()), float(defined.std(ddof=1)), (float(low), float(high)), n, given.size - n)


def summarize_difference(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Summary:
    """Summarize ``second - first`` over the same cases in the same order: the paired bootstrap.

    A case counts if both values are defined.

    Raises:
        ValueError: the two have not the same number of cases.
    """
    if len(first) != len(second):
        raise ValueError(f"a paired difference needs the same cases; {len(first)} and {len(second)} were given.")
    return summarize(np.subtract(second, first), seed=seed)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
