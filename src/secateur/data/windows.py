"""Windows of large tiles: what the nuclei networks are trained on."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from secateur.data.cases import CaseId, ImageArray
from secateur.data.distance import distance_targets
from secateur.data.instances import InstanceCase
from secateur.data.stain import jitter_stains
from secateur.errors import DataError


def to_tensor(image: ImageArray) -> Tensor:
    """Return an RGB image ``(H, W, 3)`` as the networks see it: float32 ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def mirrored_to(array: npt.NDArray[np.generic], size: int) -> npt.NDArray[np.generic]:
    """Return ``array`` ``(H, W, ...)`` with sides of ``size`` or more: short ones go on mirrored, below and right."""
    lacking = [(0, max(0, size - side)) for side in array.shape[:2]]
    if not any(after for _, after in lacking):
        return array
    return np.pad(array, [*lacking, *[(0, 0)] * (array.ndim - 2)], mode="symmetric")


@final
@dataclass(frozen=True)
class View:
    """One way to look at a window; drawn first, then applied, so that it can be repeated and shown.

    Attributes:
        corner: how far the window's upper left corner lies between the first and the last possible place, two
            numbers in [0, 1].
        flipped: mirrored left to right, before it is turned.
        turns: by 90 degrees. A slide has no upright.
        gains: of haematoxylin and eosin, see `jitter_stains`.
        offsets: of haematoxylin and eosin.
        light: factor on all channels.
        gamma: exponent on all channels.
    """

    corner: tuple[float, float]
    flipped: bool
    turns: int
    gains: tuple[float, float]
    offsets: tuple[float, float]
    light: float
    gamma: float


def draw_view(rng: np.random.Generator) -> View:
    """Draw a view: stains by 20 % and 0.05 of optical density, light by 10 %, gamma by 15 %, all uniform."""

    def pair(low: float, high: float) -> tuple[float, float]:
        first, second = rng.uniform(low, high, 2)
        return float(first), float(second)

    return View(
        corner=pair(0, 1),
        flipped=bool(rng.integers(2)),
        turns=int(rng.integers(4)),
        gains=pair(0.8, 1.2),
        offsets=pair(-0.05, 0.05),
        light=float(rng.uniform(0.9, 1.1)),
        gamma=float(rng.uniform(0.85, 1.15)),
    )


@final
class NucleiSet(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of a window, float32 ``(3, S, S)`` in [0, 1], and its target, float32 ``(2, S, S)``.

    The target holds the mask of all nuclei, 0 or 1, and `distance_targets` of the whole tile. A tile of ``H x W``
    pixels gives ceil(H / S) x ceil(W / S) samples an epoch: as many windows as cover it. Unaugmented they lie on an
    even grid; augmented, each is cut anywhere in the tile and seen in another `View` in each epoch. Samples are dealt
    round the cases, so that the first few come from as many cases as possible. Tiles smaller than a window are mirrored
    at their lower and right border.

    Item ``i`` of epoch ``e`` depends on ``(seed, e, i)`` alone, not on the order of reading or the number of workers.
    All cases are read here, so that a bad file is found before the first step: 7 bytes a pixel.

    Args:
        cases: what to read; wrap it to show progress.
        size: side S of a window in pixels.
        augment: whether to show other views in each epoch.
        seed: draws the views.

    Raises:
        DataError: a case cannot be read, or none to train on holds a nucleus.
    """

    def __init__(self, cases: Iterable[InstanceCase], *, size: int, augment: bool, seed: int = 0) -> None:
        ids, tiles, places, nuclei = [], [], [], []
        for number, case in enumerate(cases):
            image, labels = case.read()
            ids.append(case.id)
            nuclei.append(bool(labels.any()))
            tiles.append(_tile(image, distance_targets(labels), size))
            places += [(turn, number, corner) for turn, corner in enumerate(_grid(tiles[-1].image.shape[1:], size))]
        if augment and tiles and not any(nuclei):
            raise DataError(
                f"none of the {len(tiles)} cases to train on holds a nucleus ({ids[0]}, ...); give other masks."
            )
        self.ids: tuple[CaseId, ...] = tuple(ids)
        self._tiles = tuple(tiles)
        self._places = tuple((number, corner) for _, number, corner in sorted(places))
        self._size = size
        self._augment = augment
        self._seed = seed
        self._epoch = 0

    def unaugmented(self, first: int | None = None) -> Self:
        """Return the first ``first`` samples (all by default) as they are, without reading them again."""
        plain = copy.copy(self)
        plain._places, plain._augment = self._places[:first], False
        return plain

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number, corner = self._places[index]
        tile = self._tiles[number]
        if not self._augment:
            return tile.window(corner, self._size)
        view = draw_view(np.random.default_rng((self._seed, self._epoch, index)))
        rows, columns = (
            round(at * (side - self._size)) for at, side in zip(view.corner, tile.image.shape[1:], strict=True)
        )
        return _seen(*tile.window((rows, columns), self._size), view, stained=not tile.grey)

    def set_epoch(self, epoch: int) -> None:
        """Choose the views of ``epoch``, 0 or more."""
        self._epoch = epoch


@final
@dataclass(frozen=True)
class _Tile:
    image: Tensor  # uint8 (3, H, W)
    distance: Tensor  # float32 (H, W)
    grey: bool  # all channels equal: no stain to jitter

    def window(self, corner: tuple[int, int], size: int) -> tuple[Tensor, Tensor]:
        rows, columns = (slice(start, start + size) for start in corner)
        distance = self.distance[rows, columns]
        return self.image[:, rows, columns].float() / 255, torch.stack(((distance > 0).float(), distance))


def _tile(image: ImageArray, distance: npt.NDArray[np.float32], size: int) -> _Tile:
    grey = bool((image == image[..., :1]).all())
    colours = torch.from_numpy(mirrored_to(image, size).copy()).permute(2, 0, 1).contiguous()
    return _Tile(colours, torch.from_numpy(mirrored_to(distance, size)), grey)


def _grid(shape: Iterable[int], size: int) -> list[tuple[int, int]]:
    """Upper left corners of the fewest windows that cover a tile, evenly spread, rows first."""
    rows, columns = (np.linspace(0, side - size, -(-side // size)).round().astype(int).tolist() for side in shape)
    return [(row, column) for row in rows for column in columns]


def _seen(image: Tensor, target: Tensor, view: View, *, stained: bool) -> tuple[Tensor, Tensor]:
    both = torch.cat((image, target))
    both = torch.rot90(both.flip(2) if view.flipped else both, view.turns, dims=(1, 2))
    image, target = both[:3], both[3:]
    if stained:
        image = jitter_stains(image, gains=view.gains, offsets=view.offsets)
    return (view.light * image**view.gamma).clamp(0, 1), target.contiguous()
