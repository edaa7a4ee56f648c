"""Pictures of nuclei: which were found, and what became of each that was not."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.data.cases import ImageArray
from secateur.data.instances import LabelArray
from secateur.errors import InputError
from secateur.metrics.fates import fates
from secateur.metrics.instance import instance_overlaps

Colour = tuple[int, int, int]

FATE_COLOURS: Final[Mapping[str, Colour]] = MappingProxyType(
    {  # apart from the pinks and purples of the stain, and from each other without red against green
        "kept": (40, 255, 110),
        "merged": (0, 225, 255),
        "split": (30, 60, 255),
        "lost": (255, 225, 0),
        "spurious": (0, 0, 0),
    }
)


def outline(image: ImageArray, labels: LabelArray, colour: Colour = FATE_COLOURS["kept"]) -> ImageArray:
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


def fate_overlay(image: ImageArray, *, found: LabelArray, truth: LabelArray) -> ImageArray:
    """Return a copy of ``image`` that shows what became of every nucleus of the truth.

    True nuclei are outlined in the colour of their fate (`secateur.metrics.fates.Fates`, `FATE_COLOURS`); those that
    were not kept are tinted too. Spurious found ones are outlined, where no true outline runs.

    Args:
        image: RGB ``(H, W, 3)``.
        found: labels ``(H, W)``.
        truth: labels ``(H, W)``.

    Raises:
        InputError: the three have not the same size.
    """
    _require_size(image, found)
    _require_size(image, truth)
    result = fates(instance_overlaps(found, truth))
    drawn = outline(image, np.where(np.isin(found, result.spurious), found, 0), FATE_COLOURS["spurious"])
    edges = _edges(truth)
    for fate in ("kept", "merged", "split", "lost"):
        members, colour = np.isin(truth, getattr(result, fate)), np.array(FATE_COLOURS[fate])
        if fate != "kept":
            drawn[members] = (drawn[members] * 0.6 + colour * 0.4 + 0.5).astype(np.uint8)
        drawn[members & edges] = colour
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
