"""Folders of images and instance labels: one number for every nucleus, whatever the depth of the file."""

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from secateur.data.cases import CaseId, ImageArray
from secateur.data.layout import by, listed, read_header, split_folder, unreadable
from secateur.errors import DataError

LabelArray = npt.NDArray[np.int32]  # (H, W), 0 = background, 1 ... n = instances without gaps

_EIGHT = np.ones((3, 3), dtype=np.bool_)  # pixels that touch at a corner belong together
_IMAGE_MODES = ("RGB", "L", "RGBA", "LA", "P", "PA", "YCbCr")
_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_LOSSY = (".jpg", ".jpeg")
_LOOKED_AT = 20  # files, to tell a folder of binary masks from one odd mask


class InstanceCase(Protocol):
    """One image and its labelled instances, read on demand."""

    @property
    def id(self) -> CaseId:
        """Name of the case, unique in its data set and fit for a file name."""

    def read(self) -> tuple[ImageArray, LabelArray]:
        """Return the RGB image ``(H, W, 3)`` and its labels ``(H, W)``, the same at every call.

        Raises:
            DataError: the content cannot be read, or the labels are no instances.
        """


class Marking(StrEnum):
    """How the files of a data set mark its nuclei."""

    LABELS = "labels"  # a number each
    BINARY = "binary"  # one value for all; every 8-connected component counts as one nucleus


@final
@dataclass(frozen=True)
class LabelFileCase:
    """A case in two files: an 8-bit image and an integer label image of 8, 16 or 32 bits (PNG, TIFF, BMP).

    A grey image is repeated to RGB; an alpha channel is dropped where nothing is transparent. Label numbers may have
    gaps and any order: they are renumbered in ascending order.
    """

    id: CaseId
    image_path: Path
    mask_path: Path
    marking: Marking = Marking.LABELS

    def read(self) -> tuple[ImageArray, LabelArray]:
        """Return the RGB image ``(H, W, 3)`` and its labels ``(H, W)``; see `InstanceCase.read`."""
        return _read_image(self.image_path), _numbered(_read_levels(self.mask_path), self)


def load_instances(root: Path, *, seed: int, marking: Marking = Marking.LABELS) -> dict[str, list[LabelFileCase]]:
    """Return the cases under ``root`` by split, after every check that needs no pixels.

    Splits are those of `secateur.data.layout.split_folder`.

    Raises:
        DataError: no known layout, files that do not pair, headers that disagree, or unusable splits.
    """
    return split_folder(root, seed=seed, make_case=partial(_checked, marking=marking))


def _checked(case_id: CaseId, image: Path, mask: Path, *, marking: Marking) -> LabelFileCase:
    image_size, image_mode = read_header(image)
    mask_size, mask_mode = read_header(mask)
    if image_mode not in _IMAGE_MODES:
        raise DataError(
            f"{image} has the pixel format {image_mode!r}; images are 8-bit, RGB or grey. Rescale deeper values to "
            "0 ... 255 and save the image as an 8-bit PNG."
        )
    if mask_mode not in _LABEL_MODES:
        raise DataError(
            f"{mask} has the pixel format {mask_mode!r}; label images have one channel of 8, 16 or 32-bit integers. "
            "Save the number of its nucleus in every pixel, 0 for the background, e.g. as a 16-bit PNG."
        )
    if mask.suffix.lower() in _LOSSY:
        raise DataError(f"{mask} is a JPEG, which does not keep label numbers; save the labels as PNG or TIFF.")
    if image_size != mask_size:
        raise DataError(
            f"case {case_id}: the image is {by(image_size)} and the labels {by(mask_size)} pixels; both must have one "
            "size. Resize the labels with nearest neighbour, or drop the case."
        )
    return LabelFileCase(case_id, image, mask, marking)


def _read_image(path: Path) -> ImageArray:
    try:
        with Image.open(path) as image:
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise DataError(
                    f"{path} is partly transparent, so its colours depend on what lies behind; save it without alpha "
                    "channel, e.g. with Pillow's `Image.convert('RGB')`."
                )
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise unreadable(path, error) from error


def _read_levels(path: Path) -> npt.NDArray[Any]:  # bool, uint8, uint16 or int32, as the file has it
    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise DataError(f"{path} holds {pages} pages; give one label image per case.")
            return np.asarray(image)  # of a palette image its indices, which are the labels
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise unreadable(path, error) from error


def _numbered(levels: npt.NDArray[Any], case: LabelFileCase) -> LabelArray:
    values, places = np.unique(levels, return_inverse=True)
    if values[0] < 0:
        raise DataError(
            f"{case.mask_path} holds the label {values[0]}; labels are 0 for the background and 1 or more for nuclei. "
            "Set regions to ignore to 0."
        )
    nuclei = int(np.count_nonzero(values))
    if case.marking is Marking.BINARY:
        return _components(levels, case.mask_path, nuclei=nuclei)
    if nuclei == 1:
        _refuse_binary(levels, case.mask_path, value=int(values[-1]))
    first = 0 if values[0] == 0 else 1  # a file without background has no 0
    return (places.reshape(levels.shape) + first).astype(np.int32)


def _components(levels: npt.NDArray[Any], path: Path, *, nuclei: int) -> LabelArray:
    if nuclei > 1:
        some = listed(map(str, np.unique(levels[levels > 0])))
        raise DataError(
            f"{path} holds {nuclei} labels ({some}) and not one; it is no binary mask. Take the labels as they are, "
            f"with the setting data.marking={Marking.LABELS.value} (evaluate: --marking {Marking.LABELS.value})."
        )
    labels, _ = ndimage.label(levels > 0, structure=_EIGHT)
    return np.asarray(labels, dtype=np.int32)


def _refuse_binary(levels: npt.NDArray[Any], path: Path, *, value: int) -> None:
    """One value in one piece is one nucleus; in several pieces it is a mask of all nuclei."""
    _, pieces = ndimage.label(levels > 0, structure=_EIGHT)
    if pieces <= 1:
        return
    found = f"{path} is a binary mask: all of its {pieces} separate pieces have the value {value}"
    numbered = _numbered_beside(path)
    if numbered is not None:
        raise DataError(
            f"{found}, while {numbered.name} beside it numbers its nuclei. Number the pieces of this one too."
        )
    raise DataError(
        f"{found}, and touching nuclei cannot be told apart. Give instance labels, or take every connected component "
        f"as one nucleus with the setting data.marking={Marking.BINARY.value} (evaluate: --marking "
        f"{Marking.BINARY.value})."
    )


def _numbered_beside(path: Path) -> Path | None:
    """A file with several labels among the first of the same folder."""
    beside = [file for file in sorted(path.parent.glob(f"*{path.suffix}")) if not file.name.startswith(".")]
    for file in beside[:_LOOKED_AT]:
        try:
            levels = _read_levels(file)
        except DataError:
            continue
        if np.count_nonzero(np.unique(levels)) > 1:
            return file
    return None
