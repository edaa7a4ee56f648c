"""Stain augmentation against its definition and against scikit-image's colour deconvolution."""

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from secateur.data.stain import jitter_stains

STILL = {"gains": (1.0, 1.0), "offsets": (0.0, 0.0)}
DENSITY = -np.log(1e-6)  # scikit-image's unit of stain


def image(seed=0, low=0.05):
    generator = torch.Generator().manual_seed(seed)
    return low + (1 - low) * torch.rand(3, 20, 30, generator=generator)


def purple():
    """A tile of positive amounts of haematoxylin and eosin alone: what scikit-image splits without clipping."""
    amounts = np.zeros((20, 30, 3))
    amounts[..., :2] = np.random.default_rng(0).uniform(0.01, 0.08, (20, 30, 2))
    return amounts, torch.from_numpy(hed2rgb(amounts)).permute(2, 0, 1).float()


def test_nothing_drawn_gives_the_image_back():
    given = image()
    torch.testing.assert_close(jitter_stains(given, **STILL), given, rtol=0, atol=1e-5)


def test_stains_are_scaled_and_shifted_as_scikit_image_measures_them():
    amounts, tile = purple()
    jittered = jitter_stains(tile, gains=(1.3, 0.7), offsets=(0.05, 0.1)).permute(1, 2, 0).numpy()
    found = rgb2hed(jittered)
    np.testing.assert_allclose(found[..., 0], 1.3 * amounts[..., 0] + 0.05 / DENSITY, atol=2e-5)
    np.testing.assert_allclose(found[..., 1], 0.7 * amounts[..., 1] + 0.1 / DENSITY, atol=2e-5)
    np.testing.assert_allclose(found[..., 2], 0, atol=2e-5)


def test_more_haematoxylin_darkens_nuclei_and_more_eosin_the_green():
    _, tile = purple()
    more_h = jitter_stains(tile, gains=(1.5, 1.0), offsets=(0.0, 0.0))
    more_e = jitter_stains(tile, gains=(1.0, 1.5), offsets=(0.0, 0.0))
    assert (more_h < tile).all()
    loss_h, loss_e = ((tile - more).mean(dim=(1, 2)) for more in (more_h, more_e))
    assert loss_h[0] > 3 * loss_e[0]  # red is haematoxylin's
    assert loss_e.argmax() == 1


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_stay_in_range(level):
    found = jitter_stains(torch.full((3, 4, 4), level), gains=(0.5, 1.5), offsets=(-0.3, -0.3))
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
