"""A procedural colonoscopy: the data set that is always there, and always labelled synthetic.

How it works: a frame is a height map seen from above with a light beside the camera. Folds, undulations and
polyps are added to the height; one shading pass then lights them all, so a polyp shows by its shape, its rim
and its texture, and its colour alone gives it away in few frames. Patches of red and of pale mucosa, folds
and debris are there to be confused with polyps. Lengths are in half-widths of the frame, coordinates run from
-1 to 1.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.data.cases import CaseId, ImageArray, MaskArray
from secateur.data.procedural import Field, Scene, step

# Tones of healthy mucosa seen in colonoscopy, sRGB in [0, 1]: from pink over salmon to a yellowish tan.
_MUCOSA = np.array([(0.80, 0.47, 0.40), (0.86, 0.55, 0.42), (0.78, 0.42, 0.30), (0.83, 0.58, 0.44)], np.float32)
_BLOOD = np.array((0.62, 0.16, 0.14), np.float32)
_PALE = np.array((0.90, 0.72, 0.60), np.float32)
_DEBRIS = np.array((0.72, 0.55, 0.24), np.float32)


@final
@dataclass(frozen=True)
class SyntheticCase:
    """A frame drawn from ``key`` alone, `size` x `size` pixels; about 15 ms at 128 pixels.

    One frame in eight has no polyp, one in six has two.
    """

    id: CaseId
    key: tuple[int, ...]
    size: int

    def read(self) -> tuple[ImageArray, MaskArray]:
        """Draw the frame ``(S, S, 3)`` and its truth ``(S, S)``, bitwise the same at every call."""
        rng = np.random.default_rng(self.key)
        scene = Scene(rng, self.size)
        visible, vignette = _aperture(scene)
        height, depth = _wall(scene)
        colour = _mucosa(scene)
        truth = np.zeros((self.size, self.size), dtype=np.bool_)
        bearing = scene.uniform(0, 2 * np.pi)
        for number in range(int(rng.choice(3, p=(1 / 8, 17 / 24, 1 / 6)))):
            truth |= _add_polyp(scene, height, colour, depth, bearing=bearing + number * np.pi)
        _add_debris(scene, colour)
        image = _light(scene, height, colour, depth) * vignette[..., None]
        return _expose(scene, image, visible), truth & visible


def _aperture(scene: Scene) -> tuple[MaskArray, Field]:
    """The visible part of the sensor (half of the frames have a black border), and the vignette."""
    r = np.hypot(scene.x, scene.y)
    vignette = 1 - scene.uniform(0.15, 0.5) * step(r, 0.5, 1.5)
    everything = np.ones(r.shape, dtype=np.bool_)
    shape = scene.rng.choice(("full", "full", "octagon", "disc"))
    if shape == "octagon":
        cut = scene.uniform(1.45, 1.75)
        side = np.maximum(np.abs(scene.x), np.abs(scene.y)) < scene.uniform(0.93, 1.0)
        return side & (np.abs(scene.x) + np.abs(scene.y) < cut), vignette
    if shape == "disc":
        return r < scene.uniform(0.98, 1.15), vignette
    return everything, vignette


def _wall(scene: Scene) -> tuple[Field, Field]:
    """Height of the folded wall, and depth in [0, 1] (1 = the dark lumen far down)."""
    angle, off = scene.uniform(0, 2 * np.pi), scene.uniform(0.0, 1.5)
    to_x, to_y = scene.x - off * np.cos(angle), scene.y - off * np.sin(angle)
    # Three bands of muscle run along the colon and make its lumen a rounded triangle.
    lobes = 1 + scene.uniform(0, 0.2) * np.cos(3 * np.arctan2(to_y, to_x) + scene.uniform(0, 2 * np.pi))
    lumen = (np.hypot(to_x, to_y) * lobes + scene.uniform(0.02, 0.08) * scene.noise(3)).astype(np.float32)
    depth = 1 - step(lumen, 0.0, scene.uniform(0.5, 0.9))
    # Haustral folds: rings around the lumen, closer together further down, with one sharp and one gentle
    # flank.
    phase = scene.uniform(1.3, 2.8) * np.log(np.maximum(lumen, 0.03) + 0.15) + 0.3 * scene.noise(2, 2)
    saw = np.mod(phase + np.float32(scene.uniform(0, 1)), 1).astype(np.float32)
    ridge = saw**1.5 * (1 - step(saw, scene.uniform(0.45, 0.7), 1.0))
    strength = scene.uniform(0.1, 0.5) * step(scene.noise(2), -1.2, 1.2)
    undulation = 0.10 * scene.noise(2, 2) + 0.003 * scene.noise(20, 2)
    return ridge * strength * np.minimum(1, 2 * lumen) + undulation, depth


def _mucosa(scene: Scene) -> Field:
    """Colour of the wall: base tone, patches of red and pale, vessels."""
    weights = scene.rng.dirichlet(np.ones(len(_MUCOSA))).astype(np.float32)
    colour = np.broadcast_to(weights @ _MUCOSA, (scene.size, scene.size, 3)).copy()
    colour *= 1 + 0.05 * scene.noise(4, 4)[..., None]
    _tint(colour, _BLOOD, scene.uniform(0.1, 0.5) * step(scene.noise(3, 3), 0.4, 1.8))
    _tint(colour, _PALE, scene.uniform(0.1, 0.5) * step(scene.noise(3, 3), 0.4, 1.8))
    # Vessels are the zero lines of noise, in patches; the finer net is fainter.
    visibility = scene.uniform(0.0, 0.5) * step(scene.noise(2), -0.5, 0.8)
    for cells, width, share in ((4, 0.05, 1.0), (9, 0.08, 0.6)):
        line = np.exp(-((scene.noise(cells, 2) / np.float32(width)) ** 2))
        _tint(colour, _BLOOD, share * visibility * line)
    return colour


def _tint(colour: Field, towards: npt.NDArray[np.float32], weight: Field) -> None:
    colour += weight[..., None] * (towards - colour)


def _add_polyp(scene: Scene, height: Field, colour: Field, depth: Field, *, bearing: float) -> MaskArray:
    """Raise one polyp out of ``height`` and colour it, in place; return its pixels."""
    size = float(np.exp(scene.uniform(np.log(0.2), np.log(0.6))))
    rho, direction = _outline(scene, scene.uniform(0.1, 0.8), bearing, size)
    body = 1 - step(rho, 0.85, 1.1)
    height *= 1 - 0.8 * body  # the polyp hides the folds below it
    dome = np.clip(1 - rho**2, 0, 1) ** scene.uniform(0.7, 1.4)
    height += scene.uniform(0.4, 0.9) * size * dome + body * np.float32(0.012) * scene.noise(14, 2)
    depth *= 1 - scene.uniform(0.3, 0.9) * body  # it stands up towards the camera

    tone = _BLOOD if scene.rng.random() < 0.55 else _PALE
    _tint(colour, tone, body * scene.uniform(0.1, 0.45) * (0.8 + 0.3 * scene.noise(6, 2)))
    colour *= 1 + (body * scene.uniform(0.04, 0.14) * scene.noise(16, 2))[..., None]  # pits
    side = 0.65 + 0.35 * np.cos(direction - scene.uniform(0, 2 * np.pi))
    shadow = side * np.exp(-(((rho - 1.08) / 0.16) ** 2))
    colour *= 1 - (scene.uniform(0.2, 0.6) * shadow)[..., None]
    return rho < 1


def _outline(scene: Scene, reach: float, bearing: float, size: float) -> tuple[Field, Field]:
    """Distance from the middle of a lobed ellipse (1 on its outline), and direction seen from there."""
    turn = scene.uniform(0, np.pi)
    dx, dy = scene.x - reach * np.cos(bearing), scene.y - reach * np.sin(bearing)
    along = (dx * np.cos(turn) + dy * np.sin(turn)) / size
    across = (dy * np.cos(turn) - dx * np.sin(turn)) / (size * scene.uniform(0.6, 1.0))
    direction: Field = np.arctan2(across, along).astype(np.float32)
    outline = np.ones_like(direction)
    for lobes in (2, 3, 5):
        outline += scene.uniform(0.0, 0.28) / lobes * np.cos(lobes * direction + scene.uniform(0, 2 * np.pi))
    return (np.hypot(along, across) / outline + 0.05 * scene.noise(8, 2)).astype(np.float32), direction


def _add_debris(scene: Scene, colour: Field) -> None:
    """Stool and mucus in a third of the frames, in place."""
    if scene.rng.random() < 1 / 3:
        patches = step(scene.noise(5, 3), 1.1, 1.6) * scene.uniform(0.3, 0.9)
        _tint(colour, _DEBRIS, patches * (0.8 + 0.2 * scene.noise(20, 2)))


def _light(scene: Scene, height: Field, colour: Field, depth: Field) -> Field:
    """Shade the wall with a light near the camera and add wet reflections."""
    slope_y, slope_x = np.gradient(height, 2 / scene.size)
    length = np.sqrt(1 + slope_x**2 + slope_y**2)
    light_x, light_y = scene.uniform(-0.5, 0.5), scene.uniform(-0.5, 0.5)
    to_x, to_y = light_x - 0.35 * scene.x, light_y - 0.35 * scene.y
    norm = np.sqrt(to_x**2 + to_y**2 + 1)
    facing = np.clip((1 - slope_x * to_x - slope_y * to_y) / (length * norm), 0, 1)
    shade = (0.35 + 0.65 * facing) * (1 - scene.uniform(0.75, 0.95) * depth)
    image: Field = colour * shade[..., None]
    # Light that bounces between walls is red: the dark is warm, never grey.
    image[..., 1:] *= (0.75 + 0.25 * shade)[..., None]
    wet = facing + np.float32(scene.uniform(0.03, 0.07)) * scene.noise(14, 3)
    top = float(np.quantile(wet, 1 - scene.uniform(0.002, 0.03)))
    gloss = step(wet, top, top + 0.05) * (1 - depth)
    return image + gloss[..., None] * np.float32(scene.uniform(0.4, 0.8))


def _expose(scene: Scene, image: Field, visible: MaskArray) -> ImageArray:
    """Exposure, white balance, lens blur and sensor noise; the border stays black."""
    balance = np.array([scene.uniform(0.92, 1.08) for _ in range(3)], np.float32) * scene.uniform(0.85, 1.25)
    image = np.clip(image * balance, 0, 1.3)
    image = image ** np.float32(scene.uniform(0.8, 1.15))
    blur = scene.uniform(0.2, 0.9) * scene.size / 128
    image = ndimage.gaussian_filter(image, (blur, blur, 0))
    image += scene.uniform(0.004, 0.018) * scene.rng.standard_normal(image.shape, dtype=np.float32)
    frame: ImageArray = (np.clip(image * visible[..., None], 0, 1) * 255 + 0.5).astype(np.uint8)
    return frame
