"""Other laboratories' dyes: stain augmentation by colour deconvolution."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

_DARKEST = 1 / 255  # of an 8-bit image; the optical density stays finite


def jitter_stains(image: Tensor, *, gains: tuple[float, float], offsets: tuple[float, float]) -> Tensor:
    """Return ``image`` as if its haematoxylin and eosin had been stronger or weaker.

    The optical density -ln(image) is split into haematoxylin, eosin and a rest (Ruifrok & Johnston 2001, with
    scikit-image's matrix); each of the two becomes ``gain * amount + offset`` (Tellez et al. 2018, equation 2). Unlike
    scikit-image's `rgb2hed`, amounts below zero are kept: dyes differ from the matrix, and clipping would change
    colours even where nothing is jittered. So gains of 1 and offsets of 0 give the image back.

    Args:
        image: float32 ``(3, H, W)`` in [0, 1]; values below 1/255 count as 1/255.
        gains: of haematoxylin and eosin, around 1.
        offsets: of haematoxylin and eosin, in units of optical density, around 0.

    Returns:
        float32 ``(3, H, W)`` in [0, 1].
    """
    to_stains, to_colours = _matrices()
    scale = torch.tensor((*gains, 1.0))
    mixing = (to_stains * scale) @ to_colours  # rows: from, columns: to
    shift = torch.tensor((*offsets, 0.0)) @ to_colours
    density = -image.clamp(min=_DARKEST).log()
    mixed = torch.einsum("chw,cd->dhw", density, mixing) + shift[:, None, None]
    return (-mixed).exp().clamp(max=1)


@cache
def _matrices() -> tuple[Tensor, Tensor]:
    from skimage.color import hed_from_rgb, rgb_from_hed

    to_stains, to_colours = (torch.from_numpy(np.asarray(m, dtype=np.float32)) for m in (hed_from_rgb, rgb_from_hed))
    return to_stains, to_colours
