"""Lesions found, lost and invented: components of the truth against components of the prediction."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.metrics.overlap import require_same_shape

SEEN_IOU = 0.5  # a lesion is seen from this IoU on
LOST_IOU = 0.1  # and lost below this one

# A false lesion counts from this share of the frame on (33 pixels of a 256x256 frame): half of the smallest
# lesion that annotators drew in our frames of Kvasir-SEG and PolypGen (0.096 %, leaving out two stray marks).
# Smaller specks come from cutting noise at a threshold.
FALSE_LESION_SHARE = 0.0005

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def lesion_ious(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return, for each lesion of the truth, its IoU with the component of the prediction that fits it best.

    A lesion is an 8-connected component of the truth ``(H, W)``, in the order of its first pixel (row by
    row). Its IoU is the maximum over the 8-connected components of the prediction of |intersection| /
    |union|, each component taken whole: one blob over two lesions has a low IoU with both, and fragments are
    not added up.

    Returns:
        Float ``(L,)`` in [0, 1] for L lesions; zeros if the prediction is empty, ``(0,)`` if the truth is.
    """
    sizes_true, sizes_found, shared = _contingency(prediction, truth)
    union = sizes_true[:, None] + sizes_found[None, :] - shared
    best: npt.NDArray[np.float64] = np.max(shared / union, axis=1, initial=0.0)
    return best


def seen_lesions(dense: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which lesions of the truth the dense network sees: IoU of `SEEN_IOU` or more. Bool ``(L,)``."""
    return lesion_ious(dense, truth) >= SEEN_IOU


def lost_lesions(
    pruned: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], *, dense: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return which lesions the cut lost: seen by the dense network, IoU below `LOST_IOU` by the pruned one.

    See `lesion_ious` for the IoU of a lesion. Bool ``(L,)``; lesions that the dense network did not see
    cannot be lost.
    """
    return seen_lesions(dense, truth) & (lesion_ious(pruned, truth) < LOST_IOU)


def has_false_lesion(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> bool:
    """Return whether an 8-connected component of the prediction shares no pixel with the truth.

    Components smaller than `FALSE_LESION_SHARE` of the frame are ignored.
    """
    _, sizes_found, shared = _contingency(prediction, truth)
    return bool(np.any((shared.sum(axis=0) == 0) & (sizes_found >= FALSE_LESION_SHARE * truth.size)))


def _contingency(
    prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the sizes of true ``(L,)`` and found ``(P,)`` components, and what they share ``(L, P)``."""
    require_same_shape(prediction, truth)
    true, n_true = ndimage.label(truth, structure=_EIGHT_CONNECTED)
    found, n_found = ndimage.label(prediction, structure=_EIGHT_CONNECTED)
    pairs = np.bincount((true * (n_found + 1) + found).ravel(), minlength=(n_true + 1) * (n_found + 1))
    table = pairs.reshape(n_true + 1, n_found + 1)
    return table.sum(axis=1)[1:], table.sum(axis=0)[1:], table[1:, 1:]
