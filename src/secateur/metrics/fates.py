"""What became of each single instance: kept, merged, split or lost; and which found ones are spurious."""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from secateur.metrics.instance import InstanceOverlaps


@final
@dataclass(frozen=True, eq=False)
class Fates:
    """Labels of the instances of one case by their fate, each ascending.

    Every true instance has one fate, the first of these that holds:

    - *kept*: a found instance matches it, IoU above 0.5. These are the true positives of PQ.
    - *merged*: one found instance covers more than half of it, and more than half of another true instance.
      If that found instance matches one of them, this one is kept and the others are merged.
    - *split*: two or more found instances lie in it, each by more than half of its own pixels, and together
      they cover more than half of it.
    - *lost*: none of these; nothing found there, or nothing that fits.

    Attributes:
        kept: labels of the truth, integer ``(n,)``.
        merged: labels of the truth, integer ``(n,)``.
        split: labels of the truth, integer ``(n,)``.
        lost: labels of the truth, integer ``(n,)``.
        spurious: labels of the prediction, integer ``(n,)``: found instances that match nothing, and neither
            cover merged instances nor are pieces of a split one.
    """

    kept: npt.NDArray[np.integer]
    merged: npt.NDArray[np.integer]
    split: npt.NDArray[np.integer]
    lost: npt.NDArray[np.integer]
    spurious: npt.NDArray[np.integer]


def fates(overlaps: InstanceOverlaps) -> Fates:
    """Sort the instances of one case by their fate, from its table of overlaps."""
    true, found, shared = overlaps.true_index, overlaps.found_index, overlaps.shared
    n_true, n_found = overlaps.true_labels.size, overlaps.found_labels.size
    covers = 2 * shared > overlaps.true_sizes[true]  # one found instance at most covers a true one
    inside = 2 * shared > overlaps.found_sizes[found]  # a found instance lies in one true instance at most
    merges = covers & (np.bincount(found[covers], minlength=n_found)[found] > 1)
    n_pieces = np.bincount(true[inside], minlength=n_true)
    in_pieces = np.bincount(true[inside], weights=shared[inside], minlength=n_true)

    kept = _marked(true[overlaps.matched], n_true)
    merged = _marked(true[merges], n_true) & ~kept
    split = (n_pieces > 1) & (2 * in_pieces > overlaps.true_sizes) & ~kept & ~merged
    explained = overlaps.matched | merges | (inside & split[true])
    return Fates(
        kept=overlaps.true_labels[kept],
        merged=overlaps.true_labels[merged],
        split=overlaps.true_labels[split],
        lost=overlaps.true_labels[~(kept | merged | split)],
        spurious=overlaps.found_labels[~_marked(found[explained], n_found)],
    )


def _marked(positions: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.bool_]:
    marks = np.zeros(n, dtype=bool)
    marks[positions] = True
    return marks
