"""The overlay: what is tinted, what is drawn and what is left alone, against slow loops; logits to mask at any size."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.data.dataset import to_input
from secateur.errors import InputError
from secateur.tasks.polyp import PolypTask, overlay, to_mask


def frame(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def mask_of(shape, *spots):
    mask = np.zeros(shape, bool)
    for spot in spots:
        mask[spot] = True
    return mask


def drawn_by_loops(image, mask, width, colour):
    """A pixel in the mask is tinted; one within ``width`` rows and columns of it takes the colour."""
    drawn = image.copy()
    height, length = mask.shape
    for row in range(height):
        for column in range(length):
            near = mask[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
            if mask[row, column]:
                drawn[row, column] = [
                    old // 4 * 3 + new // 4 for old, new in zip(image[row, column], colour, strict=True)
                ]
            elif near.any():
                drawn[row, column] = colour
    return drawn


CORNERS = (np.s_[:3, :5], np.s_[-1, -1])


@pytest.mark.parametrize("spots", [[np.s_[20, 30]], [np.s_[10:25, 12:30], np.s_[40:44, 50:61]], CORNERS, [np.s_[:, :]]])
def test_overlay_equals_a_slow_loop(spots):
    image, mask = frame((48, 64)), mask_of((48, 64), *spots)
    np.testing.assert_array_equal(overlay(image, mask), drawn_by_loops(image, mask, 2, (0, 220, 255)))


@pytest.mark.parametrize(("shape", "width"), [((96, 96), 2), ((352, 352), 2), ((1024, 1280), 4), ((2160, 3840), 9)])
def test_the_line_stays_visible_at_any_size_even_around_one_pixel(shape, width):
    image = np.zeros((*shape, 3), np.uint8)
    changed = overlay(image, mask_of(shape, np.s_[40, 50])).any(axis=2)
    side = 2 * width + 1
    assert changed.sum() == side**2
    assert changed[40 - width : 41 + width, 50 - width : 51 + width].all()


def test_the_image_given_is_left_alone_whatever_its_layout():
    image = frame((48, 64))
    before = image.copy()
    mask = mask_of((48, 64), np.s_[10:25, 12:30])
    drawn = overlay(image, mask)
    np.testing.assert_array_equal(image, before)
    assert (drawn.dtype, drawn.shape) == (np.uint8, image.shape)
    turned = np.asarray(overlay(image.transpose(1, 0, 2), mask.T)).transpose(1, 0, 2)
    np.testing.assert_array_equal(turned, drawn)
    image.flags.writeable = False
    np.testing.assert_array_equal(overlay(image, mask), drawn)


def test_an_empty_mask_gives_an_equal_copy():
    image = frame((48, 64))
    drawn = overlay(image, mask_of((48, 64)))
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"\(48, 64, 3\) and a mask of shape \(48, 63\)"):
        overlay(frame((48, 64)), mask_of((48, 63)))


@pytest.mark.parametrize("shape", [(64, 64), (37, 91), (101, 30)])
def test_a_stream_gets_the_mask_that_predict_gives(shape):
    """Bitwise: what `predict` did before it shared the step, spelt out, and the step alone on the same logits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2)).eval()
    image = frame(shape)
    with torch.no_grad():
        logits = model(to_input(image, 32))
        model[2].bias -= logits.median()  # as much inside as outside
        logits = model(to_input(image, 32))
        resized = F.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
    expected = (resized[0, 0] > 0).numpy()
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(PolypTask(size=32).predict(model, image), expected)
    np.testing.assert_array_equal(to_mask(torch.from_numpy(logits.numpy()), image.shape[:2]), expected)
