"""Error and correlation of a predicted map inside a mask, such as distances inside the nuclei."""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from secateur.metrics.overlap import UNDEFINED, require_same_shape


@final
@dataclass(frozen=True)
class RegressionScores:
    """Agreement of a predicted map with its target, over the pixels of one mask.

    Attributes:
        mse: mean squared error, 0 or more, in the squared unit of the map; NaN (undefined) without a pixel.
        correlation: Pearson's r, in [-1, 1], blind to scale and offset; NaN if either map is constant there
            (a single pixel included).
        n: pixels that counted.
    """

    mse: float
    correlation: float
    n: int


def regression_scores(
    prediction: npt.NDArray[np.floating], target: npt.NDArray[np.floating], *, inside: npt.NDArray[np.bool_]
) -> RegressionScores:
    """Compare two maps of one shape over the pixels where ``inside`` is true, in double precision.

    Pass the *true* nuclei (``labels > 0``) as ``inside``, so that every network is judged on the same pixels.

    Raises:
        ValueError: the shapes differ, or a value inside is not finite.
    """
    require_same_shape(prediction, target)
    require_same_shape(inside, target)
    found, true = prediction[inside].astype(np.float64), target[inside].astype(np.float64)
    if n_wrong := np.count_nonzero(~np.isfinite(found) | ~np.isfinite(true)):
        raise ValueError(f"{n_wrong} of {true.size} pixels inside are not finite; both maps need finite values.")
    if not true.size:
        return RegressionScores(UNDEFINED, UNDEFINED, 0)
    varies = np.ptp(found) > 0 and np.ptp(true) > 0
    correlation = float(np.corrcoef(found, true)[0, 1]) if varies else UNDEFINED
    return RegressionScores(float(np.mean((found - true) ** 2)), correlation, true.size)
