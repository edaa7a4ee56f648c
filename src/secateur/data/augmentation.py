"""Random views of a training frame."""

import math
from typing import final

import numpy as np
import torch
from torch import Tensor


@final
class Augmentation:
    """Flips, rotation, scale and shift of image and mask; colour, gamma, blur and noise of the image.

    A colonoscope has no upright, so any angle is as likely as any other. Colour moves each channel by up to
    15 %, about what differs between two processors of endoscopes. What enters from outside the frame is
    black, as its border is.
    """

    def __init__(self) -> None:
        from monai.transforms import (
            RandAdjustContrast,
            RandAffine,
            RandFlip,
            RandGaussianNoise,
            RandGaussianSmooth,
            RandScaleIntensity,
        )

        blur = (0.3, 1.0)  # standard deviation in pixels
        self._geometry = (
            RandFlip(prob=0.5, spatial_axis=1),
            RandAffine(
                prob=0.8,
                rotate_range=math.pi,
                scale_range=0.25,
                translate_range=12,
                mode="bilinear",
                padding_mode="zeros",
            ),
        )
        self._colour = (
            RandScaleIntensity(factors=0.15, prob=0.8, channel_wise=True),
            RandAdjustContrast(prob=0.3, gamma=(0.75, 1.35)),
            RandGaussianSmooth(sigma_x=blur, sigma_y=blur, sigma_z=blur, prob=0.15),
            RandGaussianNoise(prob=0.15, std=0.03),
        )

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Return the view that ``seed`` draws.

        Args:
            image: float32 ``(3, H, W)`` in [0, 1].
            mask: float32 ``(1, H, W)``, 0 or 1.
            seed: 32-bit number; the same seed gives the same view.

        Returns:
            Image and mask as given: same shapes, same ranges.
        """
        random = np.random.RandomState(seed)  # MONAI's kind of generator
        for transform in self._geometry + self._colour:
            transform.set_random_state(state=random)
        # One resampling for both; a mask pixel is what lies more than half under the mask.
        moved = torch.cat((image, mask))
        for transform in self._geometry:
            moved = transform(moved)
        coloured = moved[:3]
        for transform in self._colour:
            coloured = transform(coloured)
        return _plain(coloured).clamp(0, 1), (_plain(moved)[3:] > 0.5).float()


def _plain(tensor: Tensor) -> Tensor:
    """MONAI's tensors carry meta data that nobody reads here."""
    return tensor.as_subclass(Tensor)
