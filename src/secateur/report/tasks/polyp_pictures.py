"""Pictures of a frame: small, with see-through masks of the truth and of both networks on top."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateur.report.tasks.pictures import Colour, image_file, jpeg, overlay, prediction_file, truth_file

_SIDE = 256  # pixels of the longer side: sharp at the size shown, about 10 kB

_WHITE, _BLUE, _ORANGE = (255, 255, 255), (64, 170, 255), (255, 165, 20)


@dataclass(frozen=True)
class FramePicture:
    """What every pruned network shares of a case, as data addresses of ``width`` x ``height`` pixels each."""

    number: int
    width: int
    height: int
    image: str
    truth: str
    dense: str


@dataclass(frozen=True)
class CutPicture:
    """What one pruned network marks in a case, and where it and the dense one disagree, as data addresses."""

    pruned: str
    only_dense: str
    only_pruned: str


def frame_picture(case_id: str, *, number: int, dense: Path) -> FramePicture:
    """The frame with the masks of truth and dense network, from the dense run's predictions folder.

    ``number`` is its place on the page, by which the pictures are referred to.
    """
    with Image.open(image_file(dense, case_id)) as file:
        image = file.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return FramePicture(
        number=number,
        width=image.width,
        height=image.height,
        image=jpeg(image),
        truth=_overlay(_mask(truth_file(dense, case_id)), _WHITE, fill=0, rim=1),
        dense=_overlay(_mask(prediction_file(dense, case_id)), _BLUE, fill=90, rim=3),
    )


def cut_picture(case_id: str, *, dense: Path, pruned: Path) -> CutPicture:
    """The pruned network's mask and its difference to the dense one's, at the size of the frame's picture."""
    before, after = (_mask(prediction_file(folder, case_id)) for folder in (dense, pruned))
    return CutPicture(
        pruned=_overlay(after, _ORANGE, fill=90, rim=3),
        only_dense=_overlay(before & ~after, _BLUE, fill=210, rim=0),
        only_pruned=_overlay(after & ~before, _ORANGE, fill=210, rim=0),
    )


def _mask(path: Path) -> NDArray[np.bool_]:
    with Image.open(path) as file:
        mask = file.convert("L")
    mask.thumbnail((_SIDE, _SIDE), Image.Resampling.NEAREST)
    return np.asarray(mask) > 127


def _overlay(mask: NDArray[np.bool_], colour: Colour, *, fill: int, rim: int) -> str:
    """Transparent outside, opaque on ``rim`` pixels of edge, ``fill`` of 255 within."""
    core = mask
    for _ in range(rim):
        core = _eroded(core)
    levels = mask.astype(np.uint8) + (mask & ~core)
    return overlay(levels, [colour] * 3, [0, fill, 255])


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
