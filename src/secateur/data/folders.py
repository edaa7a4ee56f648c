"""Folders of frames and binary masks: Kvasir-SEG, CVC-ClinicDB and any `images/` + `masks/` pair."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from secateur.data.cases import Case, CaseId, ImageArray, MaskArray
from secateur.data.layout import by, listed, read_header, split_folder, unreadable
from secateur.errors import DataError

# JPEG blurs the edge of a mask. Kvasir-SEG ships such masks, with at most 0.6 % of the pixels neither black
# nor white; five times as much is still an edge, more is a soft or a multi-class label.
JPEG_GREY_LIMIT = 0.03
_BLACK_BELOW, _WHITE_ABOVE = 32, 223  # ringing around an edge stays outside this range


@final
@dataclass(frozen=True)
class FileCase:
    """A case in two files."""

    id: CaseId
    image_path: Path
    mask_path: Path

    def read(self) -> tuple[ImageArray, MaskArray]:
        """Return the RGB image ``(H, W, 3)`` and the truth ``(H, W)``; see `Case.read`."""
        image, _ = _pixels(self.image_path)
        levels, is_jpeg = _pixels(self.mask_path)
        if levels.ndim == 3:
            levels = _single_channel(levels, self.mask_path)
        return image, _binary(levels, self.mask_path, is_jpeg=is_jpeg)


def load_folder(root: Path, *, seed: int) -> dict[str, list[Case]]:
    """Return the cases under ``root`` by split, after every check that needs no pixels.

    Splits are those of `secateur.data.layout.split_folder`.

    Raises:
        DataError: no known layout, files that do not pair, headers that disagree, or unusable splits.
    """
    return split_folder(root, seed=seed, make_case=_checked)


def _checked(case_id: CaseId, image: Path, mask: Path) -> Case:
    case = FileCase(case_id, image, mask)
    _check_headers(case)
    return case


def _check_headers(case: FileCase) -> None:
    image_size, image_mode = read_header(case.image_path)
    mask_size, mask_mode = read_header(case.mask_path)
    if image_mode != "RGB":
        raise DataError(
            f"{case.image_path} has the pixel format {image_mode!r}; images are 8-bit RGB, three channels. "
            "Convert it, e.g. with Pillow's `Image.convert('RGB')`."
        )
    if mask_mode not in ("1", "L", "P", "RGB"):
        raise DataError(
            f"{case.mask_path} has the pixel format {mask_mode!r}; masks are 8-bit with one channel, or "
            "three equal ones. Save it as an 8-bit PNG with 0 and 255."
        )
    if image_size != mask_size:
        raise DataError(
            f"case {case.id}: the image is {by(image_size)} and the mask {by(mask_size)} pixels; "
            "both must have one size. Resize the mask with nearest neighbour, or drop the case."
        )


def _pixels(path: Path) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return 8-bit pixels ``(H, W)`` or ``(H, W, 3)``, and whether the file is a JPEG."""
    try:
        with Image.open(path) as image:
            is_jpeg = image.format == "JPEG"
            grey = image.mode in ("1", "L")
            return np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8), is_jpeg
    except (OSError, UnidentifiedImageError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise unreadable(path, error) from error


def _single_channel(levels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
    first: npt.NDArray[np.uint8] = levels[..., 0]
    if not (levels == first[..., None]).all():
        raise DataError(
            f"{path} is a coloured mask; masks are black and white. Save the polyps as 255 and the rest as 0."
        )
    return first


def _binary(levels: npt.NDArray[np.uint8], path: Path, *, is_jpeg: bool) -> MaskArray:
    counts = np.bincount(levels.ravel(), minlength=256)
    values = np.flatnonzero(counts).tolist()
    if set(values) <= {0, 255} or (set(values) <= {0, 1} and not is_jpeg):
        return levels > 0
    grey = counts[_BLACK_BELOW : _WHITE_ABOVE + 1].sum() / levels.size
    if is_jpeg and values[-1] > _WHITE_ABOVE and grey <= JPEG_GREY_LIMIT:
        return levels > 127
    raise DataError(
        f"{path} is not a binary mask: it holds the values {listed(map(str, values))}, {grey:.1%} of it grey; "
        f"allowed are 0 and 255, 0 and 1, or a black and white JPEG with at most {JPEG_GREY_LIMIT:.0%} grey. "
        "Save it as a PNG with 0 and 255."
    )
