"""Pictures of nuclei: where they were found."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.data.cases import ImageArray
from secateur.data.instances import LabelArray
from secateur.errors import InputError

Colour = tuple[int, int, int]

GREEN: Colour = (40, 255, 110)  # apart from the pinks and purples of the stain


def outline(image: ImageArray, labels: LabelArray, colour: Colour = GREEN) -> ImageArray:
    """Return a copy of ``image`` with a line along the inner edge of every nucleus.

    Args:
        image: RGB ``(H, W, 3)``.
        labels: ``(H, W)``, 0 = background.
        colour: of the lines, RGB.

    Raises:
        InputError: image and labels have not the same size.
    """
    _require_size(image, labels)
    drawn = image.copy()
    drawn[_edges(labels)] = colour
    return drawn


def _edges(labels: LabelArray) -> npt.NDArray[np.bool_]:
    """Pixels of nuclei that have another label next to them: 1 pixel deep, 2 from 1000 pixels on."""
    reach = 2 * max(1, round(min(labels.shape) / 500)) + 1
    differs: npt.NDArray[np.bool_] = ndimage.maximum_filter(labels, reach) != ndimage.minimum_filter(labels, reach)
    return differs & (labels > 0)


def _require_size(image: ImageArray, labels: LabelArray) -> None:
    if image.shape != (*labels.shape, 3):
        raise InputError(
            f"an image of shape {image.shape} and labels of shape {labels.shape} were given; labels need the image's "
            "own size, one number per pixel."
        )
