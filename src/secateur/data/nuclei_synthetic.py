"""A procedural H&E slide with instance labels: the nuclei data set that is always there, and always labelled
synthetic.

How it works: two fields are drawn, how much haematoxylin and how much eosin each pixel holds, and turned into colour by
Beer and Lambert's law (transmitted light = exp(-concentration x absorption), per channel). Nuclei are placed one by
one, often against one that is there already, with the shape and chromatin of three cell types; their labels are the
pixels that each covers. Lengths are in pixels at 40x, about a quarter of a micrometre.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.data.cases import CaseId, ImageArray
from secateur.data.instances import LabelArray
from secateur.data.procedural import Field, Scene, step

# Absorption of red, green and blue per unit of stain, chosen beside real slides of several laboratories. The eosin of
# Ruifrok & Johnston 2001 is more magenta than most.
_HAEMATOXYLIN = np.array((0.53, 0.77, 0.37), np.float32)
_EOSIN = np.array((0.20, 0.84, 0.50), np.float32)

_DENSITY = 1 / 800  # nuclei tried per pixel; what finds no room is left out
_LARGEST_OVERLAP = 0.2  # of its own area that a nucleus may hide below earlier ones
_FEWEST_PIXELS = 16  # visible, or a nucleus is not drawn


@final
@dataclass(frozen=True)
class SyntheticTile:
    """A tile drawn from ``key`` alone, ``size`` x ``size`` pixels; about 45 ms at 256 pixels."""

    id: CaseId
    key: tuple[int, ...]
    size: int

    def read(self) -> tuple[ImageArray, LabelArray]:
        """Draw the tile ``(S, S, 3)`` and its labels ``(S, S)``, bitwise the same at every call."""
        scene = Scene(np.random.default_rng(self.key), self.size)
        tissue = _tissue(scene)
        labels, haematoxylin = _nuclei(scene, tissue)
        return _stained(scene, tissue, haematoxylin), labels


@final
@dataclass(frozen=True)
class _Tissue:
    """What a place of the tile is made of.

    Attributes:
        gland: 1 in epithelium, 0 in stroma.
        empty: 1 in a lumen or a tear, where the light passes.
        inflamed: 1 where lymphocytes gather.
        fibre: the strands of the stroma, in [0, 1].
        along: direction of the strands in radians.
    """

    gland: Field
    empty: Field
    inflamed: Field
    fibre: Field
    along: Field


@final
@dataclass(frozen=True)
class _Kind:
    """A cell type: ranges that each of its nuclei is drawn from."""

    radius: tuple[float, float]  # half of the longer axis
    aspect: tuple[float, float]  # shorter by longer axis
    stain: tuple[float, float]
    pallor: tuple[float, float]  # how much paler the inside is than the rim
    lobes: float  # how far the outline leaves the ellipse
    nucleoli: int  # at most


_EPITHELIAL = _Kind((7, 13), (0.65, 1.0), (0.65, 1.3), (0.2, 0.6), 0.12, 2)
_LYMPHOCYTE = _Kind((5, 7), (0.85, 1.0), (1.3, 2.0), (0.0, 0.15), 0.05, 0)
_SPINDLE = _Kind((8, 16), (0.22, 0.42), (0.9, 1.6), (0.0, 0.3), 0.12, 0)


def _tissue(scene: Scene) -> _Tissue:
    cells = scene.size / 128
    gland = step(scene.noise(1.2 * cells, 2), *_around(scene.uniform(-1.2, 1.0), 0.3))
    holes = step(scene.noise(1.6 * cells, 3), *_around(scene.uniform(1.3, 2.6), 0.12))
    inflamed = (1 - gland) * step(scene.noise(1.5 * cells, 2), *_around(scene.uniform(0.3, 2.0), 0.3))
    turn = scene.uniform(0, np.pi)
    wave = 2.2 * scene.noise(1.5 * cells, 2)
    across = scene.size / 2 * (scene.x * np.cos(turn) + scene.y * np.sin(turn))
    phase = (across / scene.uniform(3.0, 6.0) + wave * scene.uniform(1.5, 4.0)).astype(np.float32)
    down, right = np.gradient(phase)
    fibre = 0.5 + 0.5 * np.sin(phase + 0.8 * scene.noise(12 * cells, 2))
    return _Tissue(gland, holes, inflamed, fibre.astype(np.float32), np.arctan2(right, -down).astype(np.float32))


def _around(middle: float, half: float) -> tuple[float, float]:
    return middle - half, middle + half


def _nuclei(scene: Scene, tissue: _Tissue) -> tuple[LabelArray, Field]:
    """Place nuclei; return their labels and the haematoxylin in them."""
    labels = np.zeros((scene.size, scene.size), np.int32)
    stain = np.zeros((scene.size, scene.size), np.float32)
    chromatin = scene.noise(scene.size / 3.5, 2)
    scale, clustering = scene.uniform(0.8, 1.4), scene.uniform(0.2, 0.7)
    placed: list[tuple[float, float, float]] = []
    for _ in range(max(1, round(_DENSITY * scene.uniform(0.5, 1.5) * scene.size**2))):
        row, column = scene.uniform(0, scene.size), scene.uniform(0, scene.size)
        kind = _kind(scene, tissue, row, column)
        longer = scale * scene.uniform(*kind.radius)
        shorter = longer * scene.uniform(*kind.aspect)
        if placed and scene.rng.random() < clustering:
            row, column = _beside(scene, placed, reach=(longer + shorter) / 2)
        if not _is_tissue(tissue, row, column):
            continue
        spot = _spot(scene, tissue, (row, column), (longer, shorter), kind)
        if _draw(scene, spot, kind, len(placed) + 1, labels=labels, stain=stain, chromatin=chromatin):
            placed.append((row, column, (longer + shorter) / 2))
    return labels, stain


def _kind(scene: Scene, tissue: _Tissue, row: float, column: float) -> _Kind:
    place, draw = (int(row), int(column)), scene.rng.random()
    if draw < 0.08 + 0.8 * tissue.inflamed[place]:
        return _LYMPHOCYTE
    return _EPITHELIAL if draw > 0.98 - 0.85 * tissue.gland[place] else _SPINDLE


def _beside(scene: Scene, placed: list[tuple[float, float, float]], *, reach: float) -> tuple[float, float]:
    """A place at which a nucleus touches one that is there already."""
    row, column, radius = placed[int(scene.rng.integers(len(placed)))]
    bearing, distance = scene.uniform(0, 2 * np.pi), scene.uniform(0.85, 1.1) * (radius + reach)
    return row + distance * np.sin(bearing), column + distance * np.cos(bearing)


def _is_tissue(tissue: _Tissue, row: float, column: float) -> bool:
    side = len(tissue.empty)
    inside = 0 <= row < side and 0 <= column < side
    return inside and bool(tissue.empty[int(row), int(column)] < 0.3)


@final
@dataclass(frozen=True)
class _Spot:
    """The part of the tile around one nucleus: its slices, and the distance from its middle (1 on its outline)."""

    box: tuple[slice, slice]
    along: Field
    across: Field
    rho: Field


def _spot(scene: Scene, tissue: _Tissue, centre: tuple[float, float], radii: tuple[float, float], kind: _Kind) -> _Spot:
    reach = int(1.4 * radii[0]) + 3
    box = _box(centre, reach, scene.size)
    rows = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - np.float32(centre[0])
    columns = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] - np.float32(centre[1])
    turn = float(tissue.along[int(centre[0]), int(centre[1])]) if kind is _SPINDLE else scene.uniform(0, np.pi)
    turn += scene.uniform(-0.3, 0.3)
    along = (columns * np.cos(turn) + rows * np.sin(turn)) / radii[0]
    across = (rows * np.cos(turn) - columns * np.sin(turn)) / radii[1]
    direction = np.arctan2(across, along)
    outline = np.ones_like(direction)
    for lobe in (2, 3, 5):
        outline += kind.lobes * scene.uniform(0, 2 / lobe) * np.cos(lobe * direction + scene.uniform(0, 2 * np.pi))
    bend = along + kind.lobes * scene.uniform(-2, 2) * across**2
    rho = np.hypot(bend, across) / outline
    return _Spot(box, along.astype(np.float32), across.astype(np.float32), rho.astype(np.float32))


def _box(centre: tuple[float, float], reach: int, size: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, int(at) - reach), min(size, int(at) + reach + 1)) for at in centre)
    return rows, columns


def _draw(
    scene: Scene, spot: _Spot, kind: _Kind, number: int, *, labels: LabelArray, stain: Field, chromatin: Field
) -> bool:
    """Label and stain one nucleus in place, where none is yet; return False if there is no room."""
    inside, taken = spot.rho < 1, labels[spot.box] > 0
    visible = inside & ~taken
    if visible.sum() < max(_FEWEST_PIXELS, (1 - _LARGEST_OVERLAP) * inside.sum()):
        return False
    labels[spot.box][visible] = number
    depth = scene.uniform(*kind.stain)
    pale = 1 - scene.uniform(*kind.pallor) * (1 - step(spot.rho, 0.45, 0.95))
    body = pale * (1 + scene.uniform(0.1, 0.3) * chromatin[spot.box])
    for _ in range(int(scene.rng.integers(kind.nucleoli + 1))):
        aside = [scene.uniform(-0.5, 0.5) for _ in range(2)]
        body = body + 0.5 * np.exp(-((spot.along - aside[0]) ** 2 + (spot.across - aside[1]) ** 2) / 0.025)
    edge = 1 - step(spot.rho, 0.9, 1.15)
    seam = np.where(taken, 0.75, 1.0)  # where two touch, the later lies below
    stain[spot.box] = np.maximum(stain[spot.box], (depth * seam * edge * body).astype(np.float32))
    return True


def _stained(scene: Scene, tissue: _Tissue, nuclei: Field) -> ImageArray:
    """Turn concentrations into what a scanner sees."""
    cells = scene.size / 128
    cytoplasm = 0.24 + 0.06 * scene.noise(16 * cells, 4)
    collagen = 0.16 + 0.28 * tissue.fibre * (0.8 + 0.2 * scene.noise(4 * cells, 3)) + 0.03 * scene.noise(40 * cells, 2)
    eosin = tissue.gland * cytoplasm + (1 - tissue.gland) * collagen
    eosin = scene.uniform(0.7, 2.2) * (1 - 0.93 * tissue.empty) * np.clip(eosin, 0.02, None)
    haze = 0.06 + (0.10 * tissue.gland + 0.03) * (1 + 0.3 * scene.noise(14 * cells, 3))
    haematoxylin = scene.uniform(0.75, 1.25) * (nuclei + (1 - tissue.empty) * np.clip(haze, 0, None))
    dyed = haematoxylin[..., None] * _varied(scene, _HAEMATOXYLIN)
    dyed = dyed + (eosin * (1 - 0.6 * np.clip(nuclei, 0, 1)))[..., None] * _varied(scene, _EOSIN)
    return _scanned(scene, np.exp(-dyed).astype(np.float32))


def _varied(scene: Scene, absorption: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Another laboratory's dye: the same strength, a shade aside."""
    shade = absorption + scene.rng.normal(0, 0.035, 3).astype(np.float32)
    scaled: npt.NDArray[np.float32] = shade * np.float32(np.linalg.norm(absorption) / np.linalg.norm(shade))
    return scaled


def _scanned(scene: Scene, light: Field) -> ImageArray:
    """White balance, lens blur and sensor noise."""
    white = np.array([scene.uniform(0.91, 1.0) for _ in range(3)], np.float32)
    blur = scene.uniform(0.4, 1.0)
    image: Field = ndimage.gaussian_filter(light * white, (blur, blur, 0))
    image += scene.uniform(0.004, 0.015) * scene.rng.standard_normal(image.shape, dtype=np.float32)
    tile: ImageArray = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return tile
