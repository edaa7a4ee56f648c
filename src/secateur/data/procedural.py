"""Smooth random fields: what the synthetic data sets are drawn with."""

from functools import lru_cache
from typing import final

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]  # (S, S), or (S, S, 3) for colours


@final
class Scene:
    """Random numbers and the coordinates of one square image.

    Attributes:
        rng: every draw comes from here.
        size: side in pixels.
        x: column, from -1 to 1 between the borders, ``(S, S)``.
        y: row, likewise.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        self.rng = rng
        self.size = size
        self.x, self.y = np.meshgrid(axis, axis)

    def uniform(self, low: float, high: float) -> float:
        """Draw one number in [low, high)."""
        return float(self.rng.uniform(low, high))

    def noise(self, cells: float, octaves: int = 1) -> Field:
        """Smooth noise of about unit spread, ``cells`` bumps across the frame, half the size per octave."""
        total = np.zeros((self.size, self.size), np.float32)
        for octave in range(octaves):
            count = max(2, round(cells * 2**octave))
            if count > self.size // 2:
                break
            weights = _spline_weights(self.size, count)
            grid = self.rng.standard_normal((count + 3, count + 3)).astype(np.float32)
            total += np.float32(0.55**octave * 2) * (weights @ grid @ weights.T)
        return total


@lru_cache(maxsize=64)
def _spline_weights(size: int, cells: int) -> Field:
    """Cubic B-spline weights ``(size, cells + 3)`` that interpolate a grid smoothly along one axis."""
    position = (np.arange(size) + 0.5) / size * cells
    distance = np.abs(position[:, None] - (np.arange(cells + 3)[None, :] - 1))
    near = (4 - 6 * distance**2 + 3 * distance**3) / 6
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights: Field = np.where(distance < 1, near, far).astype(np.float32)
    return weights


def step(field: Field, low: float, high: float) -> Field:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    result: Field = t * t * (3 - 2 * t)
    return result
