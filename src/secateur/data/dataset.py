"""From cases to tensors: the one preprocessing, and the set that training reads."""

import copy
from collections.abc import Iterable
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from secateur.data.augmentation import Augmentation
from secateur.data.cases import Case, CaseId, ImageArray, MaskArray

# Mean and spread of RGB in [0, 1] over ImageNet, which pretrained encoders expect (He et al., CVPR 2016,
# appendix). Deployed networks get images through `to_input` or repeat exactly this.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def to_input(image: ImageArray, size: int) -> Tensor:
    """Return what a network sees of ``image``: resized to a square and normalised.

    Args:
        image: RGB ``(H, W, 3)``; the aspect ratio is not kept, as is usual for these networks.
        size: side of the square in pixels.

    Returns:
        float32 ``(1, 3, size, size)``: (value / 255 - `MEAN`) / `STD`.
    """
    return _normalise(_to_tensor(_resize_image(image, size)).float() / 255)[None]


@final
class PolypSet(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, float32 ``(3, S, S)`` normalised, and a mask, float32 ``(1, S, S)`` of 0 and 1.

    Item ``i`` of epoch ``e`` depends on ``(seed, e, i)`` alone, not on the order of reading or the number of
    workers. All cases are read here, so that a bad file is found before the first step, and kept resized as
    8-bit: 4 S^2 bytes a case. Workers that persist over epochs do not hear of `set_epoch`; let the loader
    start them anew.

    Args:
        cases: what to read, in the order of the items; wrap it to show progress.
        size: side S in pixels.
        augment: whether to show another random view of each case in each epoch.
        seed: draws the views.

    Raises:
        DataError: a case cannot be read.
    """

    def __init__(self, cases: Iterable[Case], *, size: int, augment: bool, seed: int = 0) -> None:
        ids, frames = [], []
        for case in cases:
            image, mask = case.read()
            ids.append(case.id)
            frames.append(torch.cat((_to_tensor(_resize_image(image, size)), _resize_mask(mask, size)[None])))
        self.ids: tuple[CaseId, ...] = tuple(ids)
        self._frames = tuple(frames)  # uint8 (4, S, S): RGB and the mask of 0 and 1
        self._augmentation = Augmentation() if augment else None
        self._seed = seed
        self._epoch = 0

    def unaugmented(self, first: int | None = None) -> "PolypSet":
        """Return the first ``first`` cases (all by default) as they are, without reading them again."""
        plain = copy.copy(self)
        plain.ids, plain._frames, plain._augmentation = self.ids[:first], self._frames[:first], None
        return plain

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        frame = self._frames[index]
        image, mask = frame[:3].float() / 255, frame[3:].float()
        if self._augmentation is not None:
            key = np.random.SeedSequence((self._seed, self._epoch, index))
            image, mask = self._augmentation(image, mask, seed=int(key.generate_state(1)[0]))
        return _normalise(image), mask

    def set_epoch(self, epoch: int) -> None:
        """Choose the views of ``epoch``, 0 or more."""
        self._epoch = epoch


def _resize_image(image: ImageArray, size: int) -> ImageArray:
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _resize_mask(mask: MaskArray, size: int) -> Tensor:
    """Return uint8 ``(S, S)``: 1 where the mask covers half of the pixel or more."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy((np.asarray(grey) >= 128).astype(np.uint8))


def _to_tensor(image: ImageArray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _normalise(image: Tensor) -> Tensor:
    mean, std = image.new_tensor(MEAN)[:, None, None], image.new_tensor(STD)[:, None, None]
    return (image - mean) / std
