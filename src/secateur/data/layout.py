"""Folders of image and mask pairs: which file belongs to which case, and which case to which split."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from secateur.data.cases import SPLITS, CaseId
from secateur.errors import DataError

LAYOUTS = (("images", "masks"), ("Original", "Ground Truth"))  # Kvasir-SEG and most others; CVC-ClinicDB
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")

AnyCase = TypeVar("AnyCase")


def split_folder(
    root: Path, *, seed: int, make_case: Callable[[CaseId, Path, Path], AnyCase]
) -> dict[str, list[AnyCase]]:
    """Return the cases under ``root`` by split.

    Splits come from ``root/splits.json`` (``{"train": [ids], "val": [ids], "test": [ids]}``, other keys
    ignored, an id is a file name without its ending). Without that file, ids are shuffled with ``seed`` and
    cut 80/10/10, which knows nothing of patients: give a `splits.json` where several images show one patient.

    Args:
        root: holds two folders as in `LAYOUTS`.
        seed: draws the splits where no file gives them.
        make_case: gets the id, the image's path and the mask's path of every case, and checks their headers.

    Raises:
        DataError: no known layout, files that do not pair, unusable splits, or what ``make_case`` raises.
    """
    pairs = _pair(*_find_layout(root))
    cases = {case_id: make_case(case_id, image, mask) for case_id, (image, mask) in pairs.items()}
    file = root / "splits.json"
    ids = _read_splits(file, cases) if file.exists() else _random_splits(sorted(cases), seed, root)
    return {split: [cases[name] for name in names] for split, names in ids.items()}


def read_header(path: Path) -> tuple[tuple[int, int], str]:
    """Return width and height in pixels and Pillow's name of the pixel format, without reading pixels."""
    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except (OSError, UnidentifiedImageError) as error:
        raise unreadable(path, error) from error


def listed(names: Iterable[str], limit: int = 4) -> str:
    """The first ``limit`` names as text, and how many more there are."""
    given = list(names)
    more = f" and {len(given) - limit} more" if len(given) > limit else ""
    return ", ".join(given[:limit]) + more


def by(size: tuple[int, int]) -> str:
    """A width and height as text."""
    return f"{size[0]}x{size[1]}"


def unreadable(path: Path, error: Exception) -> DataError:
    """The error of an image file that Pillow cannot read."""
    return DataError(f"{path} cannot be read as an image ({error}); replace the file or drop the case.")


def _find_layout(root: Path) -> tuple[Path, Path]:
    if not root.is_dir():
        raise DataError(
            f"the data folder {root} does not exist; give a folder, one below the folder that the environment variable "
            f"SECATEUR_DATA names, or `synthetic`."
        )
    for images, masks in LAYOUTS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    found = listed(sorted(entry.name for entry in root.iterdir())) or "nothing"
    known = " or ".join(f"`{images}/` + `{masks}/`" for images, masks in LAYOUTS)
    raise DataError(f"{root} holds {found}; a data folder holds {known}. Rename or link the two folders.")


def _pair(images: Path, masks: Path) -> dict[CaseId, tuple[Path, Path]]:
    image_files, mask_files = _files_by_stem(images), _files_by_stem(masks)
    if not image_files:
        raise DataError(f"{images} holds no image; files ending in {', '.join(SUFFIXES)} are read.")
    for kind, lacking in (
        ("image without mask", image_files.keys() - mask_files.keys()),
        ("mask without image", mask_files.keys() - image_files.keys()),
    ):
        if lacking:
            raise DataError(
                f"{len(lacking)} {kind} in {images.parent}: {listed(sorted(lacking))}; the two files of a "
                "case have the same name before the ending. Add or remove files until they pair."
            )
    return {CaseId(stem): (path, mask_files[stem]) for stem, path in sorted(image_files.items())}


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


def _read_splits(file: Path, cases: Mapping[CaseId, object]) -> dict[str, list[CaseId]]:
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


def _check_split_ids(file: Path, splits: Mapping[str, Sequence[CaseId]], cases: Mapping[CaseId, object]) -> None:
    counts = Counter(name for names in splits.values() for name in names)
    if absent := sorted(counts.keys() - cases.keys()):
        raise DataError(
            f"{file} names {len(absent)} cases that are not on disk: {listed(absent)}; "
            "add their files or take them out of the split."
        )
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(
            f"{file} names {len(repeated)} cases more than once: {listed(repeated)}; a case stands in one split, once."
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
