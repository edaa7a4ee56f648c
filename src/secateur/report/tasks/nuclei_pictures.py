"""Pictures of a tile: its worst part, with nuclei outlined in the colour of what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from secateur.metrics.fates import Fates, fates
from secateur.metrics.instance import instance_overlaps
from secateur.report.tasks.pictures import Colour, image_file, jpeg, overlay, prediction_file, truth_file

FATE_COLOURS: Final[Mapping[str, Colour]] = MappingProxyType(
    {  # apart from the stain's pinks, and from each other without red against green
        "kept": (40, 255, 110),
        "merged": (0, 225, 255),
        "split": (30, 60, 255),
        "lost": (255, 225, 0),
        "spurious": (0, 0, 0),
    }
)

_SIDE = 256  # pixels of a tile that are shown, at most: single nuclei can be told apart at the size on the page
_FINE = 512  # outlines are drawn on at least so many, so that they are thinner than a pixel of a small tile
_STEP = 8  # pixels between the places that are tried
_TINT = 110  # opacity of a nucleus that was not kept, of 255
_WHITE = (255, 255, 255)

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class TilePicture:
    """A part of a tile as data addresses, to be shown as squares of ``width`` x ``height`` pixels on each other.

    Attributes:
        left: first column of the tile that is shown.
        top: first row.
        width: how many columns are shown.
        height: how many rows.
        whole: whether that is all of the tile.
        image: photograph.
        truth: outlines of true nuclei.
        dense: what became of them in the dense network, and what it found besides.
        pruned: likewise in the pruned one.
    """

    left: int
    top: int
    width: int
    height: int
    whole: bool
    image: str
    truth: str
    dense: str
    pruned: str


def tile_picture(case_id: str, *, dense: Path, pruned: Path) -> TilePicture:
    """The part of a tile where the cut did most harm, from the predictions folders of a dense and a pruned run."""
    with Image.open(image_file(dense, case_id)) as file:
        image = file.convert("RGB")
    truth = _labels(truth_file(dense, case_id))
    found = [_labels(prediction_file(folder, case_id)) for folder in (dense, pruned)]
    before, after = (fates(instance_overlaps(labels, truth)) for labels in found)
    height, width = (min(side, _SIDE) for side in truth.shape)
    top, left = worst_place(_harm(truth, found[1], before, after), height, width)
    part = np.s_[top : top + height, left : left + width]
    fine = max(1, round(_FINE / max(height, width)))
    drawn = [
        _fate_overlay(_enlarged(truth[part], fine), _enlarged(labels[part], fine), fate)
        for labels, fate in zip(found, (before, after), strict=True)
    ]
    edges = _edges(_enlarged(truth[part], fine)).astype(np.uint8)
    return TilePicture(
        left=left,
        top=top,
        width=width,
        height=height,
        whole=(height, width) == truth.shape,
        image=jpeg(image.crop((left, top, left + width, top + height))),
        truth=overlay(edges, [_WHITE] * 2, [0, 255]),
        dense=drawn[0],
        pruned=drawn[1],
    )


def worst_place(weights: NDArray[np.float64], height: int, width: int) -> tuple[int, int]:
    """First row and column of the window with the largest sum; of equal ones that nearest to the middle.

    Args:
        weights: ``(H, W)``, 0 or more.
        height: of the window, at most H.
        width: at most W.
    """
    total = np.pad(weights, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    room = weights.shape[0] - height, weights.shape[1] - width
    tops, lefts = (np.unique([*range(0, space + 1, _STEP), space]) for space in room)
    rows, columns = np.ix_(tops, lefts)
    sums = (
        total[rows + height, columns + width]
        - total[rows, columns + width]
        - total[rows + height, columns]
        + total[rows, columns]
    )
    off_middle = np.hypot(rows - room[0] / 2, columns - room[1] / 2)
    best = np.lexsort((off_middle.ravel(), -sums.round(6).ravel()))[0]
    row, column = divmod(int(best), len(lefts))
    return int(tops[row]), int(lefts[column])


def _harm(truth: Labels, found: Labels, before: Fates, after: Fates) -> NDArray[np.float64]:
    """Every nucleus that fares badly spread over its pixels: 1 where the cut lost, merged or split it, else little."""
    worse = np.concatenate([after.merged, after.split, after.lost])
    by_cut = np.intersect1d(before.kept, worse)
    weights = np.zeros(truth.shape)
    for labels, members, weight in ((truth, by_cut, 1.0), (truth, worse, 1e-3), (found, after.spurious, 1e-3)):
        sizes = np.bincount(labels.ravel())
        shares = np.zeros(sizes.size)
        shares[members] = weight / sizes[members]
        weights += shares[labels]
    return weights


def _fate_overlay(truth: Labels, found: Labels, fate: Fates) -> str:
    """True nuclei outlined by fate, tinted where they were not kept; spurious ones outlined where no true one is."""
    names = list(FATE_COLOURS)
    levels = np.zeros(truth.shape, np.uint8)
    spurious = np.where(np.isin(found, fate.spurious), found, 0)
    levels[_edges(spurious)] = 1 + names.index("spurious")
    edges = _edges(truth)
    for level, name in enumerate(names[:-1], start=1):
        members = np.isin(truth, getattr(fate, name))
        if name != "kept":
            levels[members] = len(names) + level  # tint
        levels[members & edges] = level
    colours = [_WHITE, *FATE_COLOURS.values(), *FATE_COLOURS.values()]
    return overlay(levels, colours, [0, *[255] * len(names), *[_TINT] * len(names)])


def _edges(labels: Labels) -> NDArray[np.bool_]:
    """Pixels of nuclei that have another label within two pixels."""
    differs: NDArray[np.bool_] = ndimage.maximum_filter(labels, 5) != ndimage.minimum_filter(labels, 5)
    return differs & (labels > 0)


def _enlarged(labels: Labels, factor: int) -> Labels:
    return labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _labels(path: Path) -> Labels:
    with Image.open(path) as file:
        return np.asarray(file).astype(np.int32)
