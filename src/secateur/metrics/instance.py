"""Instances found against instances of the truth: AJI, panoptic quality with its two factors, F1 and Dice.

A label image holds one integer per instance, 0 for the background; labels may have gaps and any order, and no
value here depends on which label an instance carries. One table of overlaps is counted once per case, and
every value, the fates of single instances (`secateur.metrics.fates`) included, derives from it.

Several cases: the values are per case, and `secateur.metrics.aggregate.summarize` takes their mean, which is
how AJI is ranked (MoNuSeg, Kumar et al., IEEE TMI 2020). PQ pooled over a data set (Kirillov et al. 2019) is
another number: it adds up `InstanceScores.matched_iou` and the counts before it divides, so that cases with
many nuclei weigh more.
"""

from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from secateur.errors import DataError
from secateur.metrics.overlap import UNDEFINED, Overlap, require_same_shape

_Key = TypeVar("_Key", bound=np.integer)


@final
@dataclass(frozen=True, eq=False)
class InstanceOverlaps:
    """Sizes of L true and P found instances, and what each of the M pairs that meet shares.

    Attributes:
        true_labels: labels of the truth, ascending, integer ``(L,)``.
        found_labels: labels of the prediction, ascending, integer ``(P,)``.
        true_sizes: pixels of each true instance, int ``(L,)``.
        found_sizes: pixels of each found instance, int ``(P,)``.
        true_index: position of each pair's true instance in ``true_labels``, int ``(M,)``.
        found_index: position of each pair's found instance in ``found_labels``, int ``(M,)``.
        shared: pixels in both instances of the pair, 1 or more, int ``(M,)``.
    """

    true_labels: npt.NDArray[np.integer]
    found_labels: npt.NDArray[np.integer]
    true_sizes: npt.NDArray[np.int64]
    found_sizes: npt.NDArray[np.int64]
    true_index: npt.NDArray[np.intp]
    found_index: npt.NDArray[np.intp]
    shared: npt.NDArray[np.int64]

    @property
    def union(self) -> npt.NDArray[np.int64]:
        """Pixels in either instance of each pair, int ``(M,)``."""
        return self.true_sizes[self.true_index] + self.found_sizes[self.found_index] - self.shared

    @property
    def matched(self) -> npt.NDArray[np.bool_]:
        """Which pairs match: IoU above 0.5, bool ``(M,)``.

        An instance is in one such pair at most (Kirillov et al. 2019, section 4.1).
        """
        return 2 * self.shared > self.union


@final
@dataclass(frozen=True)
class InstanceScores:
    """How well the instances of one case were found.

    A true and a found instance match if their IoU is above 0.5 (not at it). If truth and prediction are both
    empty they agree: Dice, AJI, PQ, DQ and F1 are 1. If one of them is empty, these are 0. SQ is undefined
    (NaN) without a match.

    Attributes:
        foreground: pixel counts of all instances taken together.
        true_positive: matched pairs of instances.
        false_positive: found instances without a match.
        false_negative: true instances without a match.
        matched_iou: sum of the IoU of the matched pairs.
        aji_intersection: numerator of the AJI, in pixels.
        aji_union: denominator of the AJI, in pixels.
    """

    foreground: Overlap
    true_positive: int
    false_positive: int
    false_negative: int
    matched_iou: float
    aji_intersection: int
    aji_union: int

    @property
    def dice(self) -> float:
        """Dice of the foregrounds, in [0, 1]; blind to instances, so not the ensemble Dice ("Dice 2")."""
        return self.foreground.dice

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index, in [0, 1] (Kumar et al., IEEE TMI 2017, algorithm 1).

        Each true instance takes the found instance of largest IoU with it; a found instance may be taken by
        several. The numerator adds up the intersections, the denominator the unions, the sizes of the true
        instances that nothing overlaps and the sizes of the found instances that none took. This is neither
        AJI+ (one to one) nor the ratio with the union of the foregrounds below. It is not symmetric.

        The paper leaves ties open; its authors' code takes the lowest label. Here the larger intersection wins.
        What is still tied has one size, and is taken so that the fewest found pixels are left over: one of
        the results of algorithm 1, the same for every numbering, flip or turn of the images.
        """
        return self.aji_intersection / self.aji_union if self.aji_union else 1.0

    @property
    def dq(self) -> float:
        """Detection quality TP / (TP + FP / 2 + FN / 2), in [0, 1]; "RQ" in Kirillov et al., CVPR 2019, eq. 2."""
        errors = self.false_positive + self.false_negative
        return self.true_positive / (self.true_positive + errors / 2) if self.true_positive + errors else 1.0

    @property
    def sq(self) -> float:
        """Mean IoU of the matched pairs, in (0.5, 1] (Kirillov et al. 2019, eq. 2); undefined without one.

        A case of which nothing was found drops out of a mean of SQ: read it beside DQ.
        """
        return self.matched_iou / self.true_positive if self.true_positive else UNDEFINED

    @property
    def pq(self) -> float:
        """Panoptic quality SQ x DQ, in [0, 1], of one class and one case (Kirillov et al. 2019, eq. 1).

        The code of its authors leaves out a class without any instance; here it counts as agreement, 1.
        Otherwise a case without nuclei would count for the networks that invent some and not for those that
        do not.
        """
        return self.sq * self.dq if self.true_positive else self.dq

    @property
    def f1(self) -> float:
        """F1 of detection at IoU 0.5, in [0, 1]: the same number as `dq`, under the name used for detectors."""
        return self.dq


def instance_overlaps(prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> InstanceOverlaps:
    """Count the overlaps of two label images of one shape, in any number of dimensions.

    How it works: along the rows, neighbouring pixels mostly carry the same two labels. The images are cut into
    runs of equal pixels first, and only the few runs are sorted.

    Raises:
        ValueError: the shapes differ.
        DataError: an image is not of integers, or has a label below 0.
    """
    require_same_shape(prediction, truth)
    true_pixels, found_pixels = _labels(truth, "truth"), _labels(prediction, "prediction")
    (first,) = np.nonzero(_changes(true_pixels) | _changes(found_pixels))
    lengths = np.diff(first, append=truth.size)
    true_labels, true_sizes, true_run = _instances(true_pixels[first], lengths)
    found_labels, found_sizes, found_run = _instances(found_pixels[first], lengths)
    both = (true_run >= 0) & (found_run >= 0)
    pairs, shared, _ = _totals(true_run[both] * found_labels.size + found_run[both], lengths[both])
    true_index, found_index = np.divmod(pairs, max(found_labels.size, 1))
    return InstanceOverlaps(true_labels, found_labels, true_sizes, found_sizes, true_index, found_index, shared)


def instance_scores(overlaps: InstanceOverlaps) -> InstanceScores:
    """Score the instances of one case from its table of overlaps."""
    both, true, found = (int(sizes.sum()) for sizes in (overlaps.shared, overlaps.true_sizes, overlaps.found_sizes))
    matched, union = overlaps.matched, overlaps.union
    n_matched = int(np.count_nonzero(matched))
    intersection_aji, union_aji = _aggregated_jaccard(overlaps)
    return InstanceScores(
        foreground=Overlap(both, found - both, true - both),
        true_positive=n_matched,
        false_positive=overlaps.found_labels.size - n_matched,
        false_negative=overlaps.true_labels.size - n_matched,
        matched_iou=float(np.sum(overlaps.shared[matched] / union[matched])),
        aji_intersection=intersection_aji,
        aji_union=union_aji,
    )


def _aggregated_jaccard(overlaps: InstanceOverlaps) -> tuple[int, int]:
    """Return numerator and denominator of the AJI in pixels; see `InstanceScores.aji`."""
    best = _best_pairs(overlaps)
    intersections = np.zeros_like(overlaps.true_sizes)
    unions = overlaps.true_sizes.copy()  # of a true instance that nothing overlaps: itself
    intersections[overlaps.true_index[best]] = overlaps.shared[best]  # pairs still tied write the same value
    unions[overlaps.true_index[best]] = overlaps.union[best]
    left_over = overlaps.found_sizes[~_taken(overlaps, best)]
    return int(intersections.sum()), int(unions.sum() + left_over.sum())


def _best_pairs(overlaps: InstanceOverlaps) -> npt.NDArray[np.bool_]:
    """Return the pairs of largest IoU per true instance, and of largest intersection among these. Bool ``(M,)``.

    IoUs are compared as floats: equal fractions round to equal floats, and different ones stay apart for
    unions below 2**26 pixels.
    """
    iou = overlaps.shared / overlaps.union
    largest_iou = np.zeros(overlaps.true_labels.size)
    np.maximum.at(largest_iou, overlaps.true_index, iou)
    best = iou == largest_iou[overlaps.true_index]
    largest = np.zeros_like(overlaps.true_sizes)
    np.maximum.at(largest, overlaps.true_index[best], overlaps.shared[best])
    result: npt.NDArray[np.bool_] = best & (overlaps.shared == largest[overlaps.true_index])
    return result


def _taken(overlaps: InstanceOverlaps, best: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which found instances are taken if ties leave as few found pixels over as possible. Bool ``(P,)``.

    The candidates of a tie have one size (same intersection, same union), and so have all that ties link. The
    fewest pixels are left over by taking the most instances, a bipartite matching.
    """
    true_index, found_index = overlaps.true_index[best], overlaps.found_index[best]
    tied = np.bincount(true_index, minlength=overlaps.true_labels.size)[true_index] > 1
    taken = np.zeros(overlaps.found_labels.size, dtype=bool)
    taken[found_index[~tied]] = True
    free = tied & ~taken[found_index]
    shape = (overlaps.true_labels.size, overlaps.found_labels.size)
    choices = csr_array((np.ones(np.count_nonzero(free)), (true_index[free], found_index[free])), shape=shape)
    chosen = maximum_bipartite_matching(choices, perm_type="column")
    taken[chosen[chosen >= 0]] = True
    return taken


def _instances(
    labels: npt.NDArray[np.integer], lengths: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Return labels above 0, the pixels of each, and each run's position among them (-1 = background)."""
    present, sizes, position = _totals(labels, lengths)
    n_background = int(np.count_nonzero(present == 0))
    return present[n_background:], sizes[n_background:], position - n_background


def _totals(
    keys: npt.NDArray[_Key], lengths: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[_Key], npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Return the different keys, ascending, the total length of each, and the position of each run's key.

    The same as ``np.unique(..., return_inverse=True)``, which sorts indices instead of keys, many times slower.
    """
    ordered = np.sort(keys)
    present = ordered[_changes(ordered)]
    position = np.searchsorted(present, keys)
    totals = np.bincount(position, weights=lengths, minlength=present.size)  # floats, exact below 2**53
    return present, totals.astype(np.int64), position


def _changes(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Return which values of ``(n,)`` differ from the one before; the first does."""
    changes = np.ones(values.size, dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _labels(image: npt.NDArray[np.integer], name: str) -> npt.NDArray[np.integer]:
    """Return the pixels of a label image as ``(H * W,)``, refusing what is none."""
    if not np.issubdtype(image.dtype, np.integer):
        raise DataError(
            f"the {name} is {image.dtype}; instances are integer labels, 0 = background. "
            "Number the components of a binary mask first (scipy.ndimage.label)."
        )
    if np.min(image, initial=0) < 0:
        raise DataError(f"the {name} has the label {image.min()}; labels are 0 (background) or more.")
    return image.ravel()
