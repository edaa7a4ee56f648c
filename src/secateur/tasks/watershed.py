"""From two maps to single nuclei: a watershed of the predicted distances inside the predicted mask."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from secateur.data.instances import LabelArray
from secateur.errors import DataError
from secateur.metrics.instance import instance_overlaps, instance_scores

Map = npt.NDArray[np.float32]  # (H, W)


class Merge(BaseModel):
    """Constants of `merge_branches`, fixed over all cuts of a dense network.

    Validation chooses ``smallest``, ``smoothing`` and ``spacing`` (`choose_constants`); the other two stay as given.

    Attributes:
        threshold: probability from which a pixel belongs to a nucleus.
        largest_hole: pixels of background enclosed by the mask, or by mask and border, that are filled; larger ones
            stay, since a ring of touching nuclei around a lumen is no nucleus.
        smallest: pixels below which a region of the mask, or a nucleus, is dropped.
        smoothing: standard deviation of the Gaussian over the distances, as a share of the mean predicted diameter.
        spacing: a marker is the highest pixel as far as this share of the mean predicted diameter, along rows and
            columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(0.5, gt=0, lt=1)
    largest_hole: int = Field(60, ge=0)
    smallest: int = Field(30, ge=0)
    smoothing: float = Field(0.1, ge=0)
    spacing: float = Field(0.25, ge=0)


def candidates() -> tuple[Merge, ...]:
    """The small grid that `choose_constants` tries: 48 records, the defaults among them."""
    grid = product((15, 30, 60), (0.05, 0.1, 0.2, 0.3), (0.15, 0.25, 0.4, 0.6))
    return tuple(Merge(smallest=smallest, smoothing=sigma, spacing=space) for smallest, sigma, space in grid)


def merge_branches(probability: Map, distance: Map, constants: Merge) -> LabelArray:
    """Return the nuclei that the two branches describe together, numbered 1 ... n in reading order of their markers.

    How it works (after Mahbod et al. 2022): the probability is cut at the threshold, small holes are filled and small
    regions dropped. The distances, no lower than 0, are smoothed by a Gaussian whose width follows the mean diameter
    of the regions. The local maxima of the result are markers, a plateau as a whole; a region without one gets its
    highest pixel. A watershed of the negated distances, flooded from the markers inside the mask, gives each pixel to
    one nucleus, and those too small are dropped.

    Args:
        probability: of nucleus, ``(H, W)`` in [0, 1].
        distance: predicted `secateur.data.distance.distance_targets`, ``(H, W)``, any values.
        constants: see `Merge`.

    Returns:
        int32 ``(H, W)``, 0 = background; all 0 where nothing is above the threshold.
    """
    from skimage.segmentation import watershed

    regions = _cleaned_regions(probability >= constants.threshold, constants)
    mask = regions > 0
    if not mask.any():
        return regions
    diameter = _mean_diameter(regions)
    smooth = ndimage.gaussian_filter(np.where(mask, np.maximum(distance, 0), 0), constants.smoothing * diameter)
    markers = _markers(smooth, regions, spacing=constants.spacing * diameter)
    nuclei = watershed(-smooth, markers, mask=mask)  # type: ignore[no-untyped-call]  # scikit-image has no hints
    return _without_small(nuclei, constants.smallest)


@final
@dataclass(frozen=True)
class Prediction:
    """What the two branches say of one case, beside its truth."""

    probability: Map
    distance: Map
    truth: LabelArray


def choose_constants(predictions: Iterable[Prediction], among: Sequence[Merge] | None = None) -> Merge:
    """Return the constants with the highest mean AJI over the cases, the first of equals.

    Give the validation cases and the *dense* network, and use the result for every network that is cut from it:
    constants chosen anew for each would hide a part of what the cut costs. About 0.2 s per case and candidate for a
    tile of 1000x1000 pixels.

    Raises:
        DataError: no cases.
    """
    tried = candidates() if among is None else among
    scores = [[_aji(prediction, constants) for constants in tried] for prediction in predictions]
    if not scores:
        raise DataError("no case was given to choose the constants of the watershed on; give the validation split.")
    return tried[int(np.mean(scores, axis=0).argmax())]


def _aji(prediction: Prediction, constants: Merge) -> float:
    found = merge_branches(prediction.probability, prediction.distance, constants)
    return instance_scores(instance_overlaps(found, prediction.truth)).aji


def _cleaned_regions(mask: npt.NDArray[np.bool_], constants: Merge) -> LabelArray:
    """Fill small holes, drop small regions and number the others; all 4-connected, as the watershed floods."""
    background = _without_small(_regions(~mask), constants.largest_hole + 1)
    return _without_small(_regions(background == 0), constants.smallest)


def _regions(mask: npt.NDArray[np.bool_]) -> LabelArray:
    """Number the 4-connected regions of a mask in reading order."""
    regions = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=regions)
    return regions


def _mean_diameter(regions: LabelArray) -> float:
    """Mean over the regions of the diameter of a disc of their area, in pixels."""
    areas = np.bincount(regions.ravel())[1:]
    return float(np.sqrt(4 * areas / np.pi).mean())


def _markers(smooth: Map, regions: LabelArray, *, spacing: float) -> LabelArray:
    """Number the highest pixels of every neighbourhood, and of every region that has none of them.

    A plateau is one marker, diagonals included, but never reaches into another region: where the distances say
    nothing, a region is one nucleus.
    """
    inside, side = np.where(regions > 0, smooth, -np.inf), 2 * max(1, round(spacing)) + 1
    summits = (inside == ndimage.maximum_filter(inside, side)) & (regions > 0)
    summits[_highest_of_those_without(summits, smooth, regions)] = True
    markers = np.zeros(regions.shape, dtype=np.int32)
    ndimage.label(summits, structure=np.ones((3, 3)), output=markers)
    parts = np.stack([markers[summits], regions[summits]])
    markers[summits] = np.unique(parts, axis=1, return_inverse=True)[1].ravel() + 1
    return markers


def _highest_of_those_without(
    summits: npt.NDArray[np.bool_], smooth: Map, regions: LabelArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column of the highest pixel, the first of equals, of every region without a summit.

    Only their pixels are sorted: `scipy.ndimage.maximum_position` sorts all of a tile, which took longer than the
    watershed.
    """
    without = np.ones(regions.max() + 1, dtype=bool)
    without[regions[summits]] = without[0] = False
    rows, columns = np.nonzero(np.take(without, regions))
    numbers = regions[rows, columns]
    order = np.lexsort((-smooth[rows, columns], numbers))
    highest = order[np.unique(numbers[order], return_index=True)[1]]
    return rows[highest], columns[highest]


def _without_small(labels: LabelArray, smallest: int) -> LabelArray:
    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(1, smallest)
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    renumbered: LabelArray = np.take(numbers, labels)
    return renumbered
