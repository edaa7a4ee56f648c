"""Dice, IoU, precision and recall, all from one set of pixel counts."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

UNDEFINED: Final = float("nan")


@final
@dataclass(frozen=True)
class Overlap:
    """Pixel counts of a binary prediction against its truth, with TP + FP predicted and TP + FN true pixels.

    Undefined values (a denominator of zero) are NaN, with one exception: if prediction and truth are both
    empty they agree, and Dice and IoU are 1.
    """

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), in [0, 1]; 1 if both are empty, 0 if one is (Dice, Ecology 1945)."""
        errors = self.false_positive + self.false_negative
        total = 2 * self.true_positive + errors
        return 2 * self.true_positive / total if total else 1.0

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), in [0, 1]; 1 if both are empty, 0 if one is (Jaccard 1901)."""
        union = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / union if union else 1.0

    @property
    def precision(self) -> float:
        """TP / (TP + FP), in [0, 1]; undefined if the prediction is empty."""
        predicted = self.true_positive + self.false_positive
        return self.true_positive / predicted if predicted else UNDEFINED

    @property
    def recall(self) -> float:
        """TP / (TP + FN), in [0, 1]; undefined if the truth is empty."""
        true = self.true_positive + self.false_negative
        return self.true_positive / true if true else UNDEFINED


def overlap(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Overlap:
    """Count the pixels of two binary masks of one shape, in any number of dimensions.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(prediction, truth)
    both = int(np.count_nonzero(prediction & truth))
    return Overlap(
        true_positive=both,
        false_positive=int(np.count_nonzero(prediction)) - both,
        false_negative=int(np.count_nonzero(truth)) - both,
    )


def require_same_shape(prediction: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> None:
    """Raise `ValueError` unless both masks have one shape."""
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction is {prediction.shape} and the truth {truth.shape}; masks have one shape.")
