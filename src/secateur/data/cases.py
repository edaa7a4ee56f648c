"""A case: one image with its label, whatever it comes from."""

from typing import NewType, Protocol

import numpy as np
import numpy.typing as npt

CaseId = NewType("CaseId", str)
ImageArray = npt.NDArray[np.uint8]  # (H, W, 3) RGB
MaskArray = npt.NDArray[np.bool_]  # (H, W), True = polyp

SPLITS = ("train", "val", "test")


class Case(Protocol):
    """One frame and its truth, read on demand."""

    @property
    def id(self) -> CaseId:
        """Name of the case, unique in its data set and fit for a file name."""

    def read(self) -> tuple[ImageArray, MaskArray]:
        """Return the RGB image ``(H, W, 3)`` and the truth ``(H, W)``, the same at every call.

        Raises:
            DataError: the content cannot be read or is not an image with a binary mask.
        """
