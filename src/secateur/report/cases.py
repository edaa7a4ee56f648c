"""Which cases to show, and their pictures as small images with see-through masks on top."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateur.records import Record

_WORST, _OTHERS = 12, 3  # cases shown: worst, and as many from the middle as from the best
_SIDE = 256  # pixels of the longer side: sharp at the size shown, about 10 kB
_QUALITY = 80

_WHITE, _BLUE, _ORANGE = (255, 255, 255), (64, 170, 255), (255, 165, 20)


@dataclass(frozen=True)
class CasePair:
    """One case before and after pruning."""

    id: str
    dense_dice: float
    pruned_dice: float
    polyps_lost: int

    @property
    def change(self) -> float:
        """Dice of the pruned network minus that of the dense one."""
        return self.pruned_dice - self.dense_dice


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


def case_pairs(dense: Record, pruned: Record) -> list[CasePair]:
    """All cases of two evaluations, worst first: those with lost polyps, then by the change in Dice."""
    before = {case["id"]: case["dice"] for case in dense["cases"]}
    pairs = [
        CasePair(case["id"], before[case["id"]], case["dice"], case.get("polyps_lost") or 0)
        for case in pruned["cases"]
        if case["dice"] is not None and before[case["id"]] is not None
    ]
    return sorted(pairs, key=lambda pair: (-pair.polyps_lost, pair.change, pair.id))


def choose_cases(pairs: Sequence[CasePair]) -> dict[str, list[CasePair]]:
    """The worst, middle and best of sorted ``pairs`` under headings; all of them where there are few."""
    if len(pairs) <= _WORST + 2 * _OTHERS:
        return {"All cases, worst first": list(pairs)}
    middle = max(_WORST, (len(pairs) - _OTHERS) // 2)
    return {
        "Worst for the pruned network": list(pairs[:_WORST]),
        "In the middle": list(pairs[middle : middle + _OTHERS]),
        "Best for the pruned network": list(pairs[-_OTHERS:]),
    }


def pictures_exist(case_id: str, *, dense: Path, pruned: Path) -> bool:
    """Whether both predictions folders hold what the pictures of a case are made of."""
    files = (_image_file(dense, case_id), _truth_file(dense, case_id), _mask_file(dense, case_id))
    return all(path.is_file() for path in (*files, _mask_file(pruned, case_id)))


def frame_picture(case_id: str, *, number: int, dense: Path) -> FramePicture:
    """The frame with the masks of truth and dense network, from the dense run's predictions folder.

    ``number`` is its place on the page, by which the pictures are referred to.
    """
    with Image.open(_image_file(dense, case_id)) as file:
        image = file.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return FramePicture(
        number=number,
        width=image.width,
        height=image.height,
        image=_jpeg(image),
        truth=_overlay(_mask(_truth_file(dense, case_id)), _WHITE, fill=0, rim=1),
        dense=_overlay(_mask(_mask_file(dense, case_id)), _BLUE, fill=90, rim=3),
    )


def cut_picture(case_id: str, *, dense: Path, pruned: Path) -> CutPicture:
    """The pruned network's mask and its difference to the dense one's, at the size of the frame's picture."""
    before, after = (_mask(_mask_file(folder, case_id)) for folder in (dense, pruned))
    return CutPicture(
        pruned=_overlay(after, _ORANGE, fill=90, rim=3),
        only_dense=_overlay(before & ~after, _BLUE, fill=210, rim=0),
        only_pruned=_overlay(after & ~before, _ORANGE, fill=210, rim=0),
    )


def _image_file(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}_image.jpg"


def _truth_file(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}_truth.png"


def _mask_file(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}.png"


def _mask(path: Path) -> NDArray[np.bool_]:
    with Image.open(path) as file:
        mask = file.convert("L")
    mask.thumbnail((_SIDE, _SIDE), Image.Resampling.NEAREST)
    return np.asarray(mask) > 127


def _overlay(mask: NDArray[np.bool_], colour: tuple[int, int, int], *, fill: int, rim: int) -> str:
    """A palette PNG: transparent outside, opaque on ``rim`` pixels of edge, ``fill`` of 255 within."""
    core = mask
    for _ in range(rim):
        core = _eroded(core)
    levels = mask.astype(np.uint8) + (mask & ~core)
    picture = Image.fromarray(levels).convert("P")
    picture.putpalette([*colour] * 3)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, bits=2, transparency=bytes([0, fill, 255]))
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
