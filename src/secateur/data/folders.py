"""Folders of frames and binary masks: Kvasir-SEG, CVC-ClinicDB and any `images/` + `masks/` pair."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from secateur.data.cases import SPLITS, Case, CaseId, ImageArray, MaskArray
from secateur.errors import DataError

LAYOUTS = (("images", "masks"), ("Original", "Ground Truth"))  # Kvasir-SEG and most others; CVC-ClinicDB
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")

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

    Splits come from ``root/splits.json`` (``{"train": [ids], "val": [ids], "test": [ids]}``, other keys
    ignored, an id is a file name without its ending). Without that file, ids are shuffled with ``seed`` and
    cut 80/10/10, which knows nothing of patients: give a `splits.json` where several frames show one patient.

    Raises:
        DataError: no known layout, files that do not pair, headers that disagree, or unusable splits.
    """
    cases = _pair(*_find_layout(root))
    for case in cases.values():
        _check_headers(case)
    file = root / "splits.json"
    ids = _read_splits(file, cases) if file.exists() else _random_splits(sorted(cases), seed, root)
    return {split: [cases[name] for name in names] for split, names in ids.items()}


def _find_layout(root: Path) -> tuple[Path, Path]:
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist; give a folder, or `synthetic`.")
    for images, masks in LAYOUTS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    found = _some(sorted(entry.name for entry in root.iterdir())) or "nothing"
    known = " or ".join(f"`{images}/` + `{masks}/`" for images, masks in LAYOUTS)
    raise DataError(f"{root} holds {found}; a data folder holds {known}. Rename or link the two folders.")


def _pair(images: Path, masks: Path) -> dict[CaseId, FileCase]:
    image_files, mask_files = _files_by_stem(images), _files_by_stem(masks)
    if not image_files:
        raise DataError(f"{images} holds no image; files ending in {', '.join(SUFFIXES)} are read.")
    for kind, lacking in (
        ("image without mask", image_files.keys() - mask_files.keys()),
        ("mask without image", mask_files.keys() - image_files.keys()),
    ):
        if lacking:
            raise DataError(
                f"{len(lacking)} {kind} in {images.parent}: {_some(sorted(lacking))}; the two files of a "
                "case have the same name before the ending. Add or remove files until they pair."
            )
    return {CaseId(stem): FileCase(CaseId(stem), path, mask_files[stem]) for stem, path in sorted(image_files.items())}


def _files_by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise DataError(
                f"{files[path.stem].name} and {path.name} in {folder} have one case name; keep one of them."
            )
        files[path.stem] = path
    return files


def _check_headers(case: FileCase) -> None:
    image_size, image_mode = _header(case.image_path)
    mask_size, mask_mode = _header(case.mask_path)
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
            f"case {case.id}: the image is {_by(image_size)} and the mask {_by(mask_size)} pixels; "
            "both must have one size. Resize the mask with nearest neighbour, or drop the case."
        )


def _header(path: Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except (OSError, UnidentifiedImageError) as error:
        raise _unreadable(path, error) from error


def _pixels(path: Path) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return 8-bit pixels ``(H, W)`` or ``(H, W, 3)``, and whether the file is a JPEG."""
    try:
        with Image.open(path) as image:
            is_jpeg = image.format == "JPEG"
            grey = image.mode in ("1", "L")
            return np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8), is_jpeg
    except (OSError, UnidentifiedImageError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise _unreadable(path, error) from error


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
        f"{path} is not a binary mask: it holds the values {_some(map(str, values))}, {grey:.1%} of it grey; "
        f"allowed are 0 and 255, 0 and 1, or a black and white JPEG with at most {JPEG_GREY_LIMIT:.0%} grey. "
        "Save it as a PNG with 0 and 255."
    )


def _read_splits(file: Path, cases: Mapping[CaseId, FileCase]) -> dict[str, list[CaseId]]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))  # JSON is checked key by key below
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not readable JSON ({error}); correct it or remove it.") from error
    splits: dict[str, list[CaseId]] = {}
    for split in SPLITS:
        names = content.get(split) if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{file} has no list of case names under {split!r}; it needs {', '.join(SPLITS)}.")
        if not names:
            raise DataError(f"the split {split!r} in {file} is empty; give it at least one case.")
        splits[split] = [CaseId(name) for name in names]
    _check_split_ids(file, splits, cases)
    return splits


def _check_split_ids(file: Path, splits: Mapping[str, Sequence[CaseId]], cases: Mapping[CaseId, FileCase]) -> None:
    counts = Counter(name for names in splits.values() for name in names)
    if absent := sorted(counts.keys() - cases.keys()):
        raise DataError(
            f"{file} names {len(absent)} cases that are not on disk: {_some(absent)}; "
            "add their files or take them out of the split."
        )
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(
            f"{file} names {len(repeated)} cases more than once: {_some(repeated)}; a case stands in one split, once."
        )


def _random_splits(names: Sequence[CaseId], seed: int, root: Path) -> dict[str, list[CaseId]]:
    if len(names) < len(SPLITS):
        raise DataError(
            f"{root} holds {len(names)} cases, which leaves a split empty; at least {len(SPLITS)} are needed."
        )
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    tenth = max(1, round(len(names) / 10))
    return {
        "train": sorted(shuffled[2 * tenth :]),
        "val": sorted(shuffled[:tenth]),
        "test": sorted(shuffled[tenth : 2 * tenth]),
    }


def _some(names: Iterable[str], limit: int = 4) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as an image ({error}); replace the file or drop the case.")
