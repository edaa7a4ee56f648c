"""Distance between the surfaces of two binary masks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.metrics.overlap import UNDEFINED, require_same_shape


def hd95(
    prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], *, spacing: Sequence[float] | None = None
) -> float:
    """Return the robust Hausdorff distance: the larger of the two directed 95th percentiles.

    The surface of a mask is its pixels with a face neighbour outside the mask; beyond the border of the image
    is outside. The directed percentile takes, over the surface pixels of one mask, the 95th percentile
    (linear interpolation) of the Euclidean distance to the nearest surface pixel of the other. This is the
    definition of MONAI's `compute_hausdorff_distance(percentile=95)`, and is not the percentile of both
    directions pooled.

    Args:
        prediction: binary mask, in any number of dimensions.
        truth: binary mask of the same shape.
        spacing: size of a pixel along each axis; one pixel by default, which makes the result pixels.

    Returns:
        Distance in the unit of ``spacing``, 0 or more; NaN (undefined) if either mask is empty.

    Raises:
        ValueError: the shapes differ, or ``spacing`` has not one value per axis.
    """
    require_same_shape(prediction, truth)
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(f"spacing {tuple(spacing)} has {len(spacing)} values for masks with {truth.ndim} axes.")
    if not prediction.any() or not truth.any():
        return UNDEFINED
    box = ndimage.find_objects((prediction | truth).astype(np.int8))[0]
    surface_a, surface_b = _surface(prediction[box]), _surface(truth[box])
    return max(_directed(surface_a, surface_b, spacing), _directed(surface_b, surface_a, spacing))


def _surface(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)


def _directed(source: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_], spacing: Sequence[float] | None) -> float:
    distance = ndimage.distance_transform_edt(~target, sampling=spacing)
    return float(np.percentile(distance[source], 95))
