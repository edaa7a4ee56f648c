"""The training set and the preprocessing: repeatable items, image and mask moved alike."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from secateur.data.augmentation import Augmentation
from secateur.data.dataset import MEAN, STD, PolypSet, to_input
from secateur.data.sources import DataRecipe, load_cases

CASES = load_cases(DataRecipe(size=64, train=6, val=1, test=1))["train"]


@dataclass(frozen=True)
class DrawnCase:
    id: str
    image: np.ndarray
    mask: np.ndarray

    def read(self):
        return self.image, self.mask


def white_polyp(size=64):
    mask = np.zeros((size, size), bool)
    mask[12:30, 20:50] = True
    return DrawnCase("white", np.where(mask[..., None], 255, 90).repeat(3, axis=2).astype(np.uint8), mask)


def test_items_have_the_stated_shapes_and_values():
    image, mask = PolypSet(CASES, size=48, augment=True)[0]
    assert (image.shape, image.dtype) == ((3, 48, 48), torch.float32)
    assert (mask.shape, mask.dtype) == ((1, 48, 48), torch.float32)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert type(image) is type(mask) is torch.Tensor


def test_without_augmentation_an_item_is_the_preprocessed_case():
    image, mask = PolypSet(CASES, size=48, augment=False)[2]
    pixels, truth = CASES[2].read()
    torch.testing.assert_close(image[None], to_input(pixels, 48), rtol=0, atol=0)
    assert mask.mean().item() == pytest.approx(truth.mean(), abs=0.01)


def test_preprocessing_is_scale_then_mean_and_spread():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    torch.testing.assert_close(to_input(pixels, 40)[0], torch.from_numpy(expected.transpose(2, 0, 1)).float())


def test_resizing_keeps_flat_colour_and_mean():
    pixels = np.full((31, 53, 3), (200, 100, 50), np.uint8)
    assert to_input(pixels, 48).shape == (1, 3, 48, 48)
    flat = (torch.tensor([200, 100, 50]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(to_input(pixels, 48), flat[None, :, None, None].expand(1, 3, 48, 48))
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, ::2] = 255  # single-pixel stripes: a resize without antialiasing would alias them
    mean = (to_input(half, 32) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]).mean()
    assert mean.item() == pytest.approx(0.5, abs=0.02)


def test_items_do_not_depend_on_the_order_of_reading():
    one, two = PolypSet(CASES, size=48, augment=True, seed=3), PolypSet(CASES, size=48, augment=True, seed=3)
    two.set_epoch(4)
    for index in (5, 0, 0, 3):
        two[index]
    one.set_epoch(4)
    torch.testing.assert_close(one[2], two[2], rtol=0, atol=0)


def test_items_do_not_depend_on_workers():
    frames = PolypSet(CASES, size=48, augment=True)
    frames.set_epoch(1)
    alone = list(DataLoader(frames, batch_size=2))
    shared = list(DataLoader(frames, batch_size=2, num_workers=2))
    torch.testing.assert_close(alone, shared, rtol=0, atol=0)


def test_each_of_seed_epoch_and_index_draws_another_view():
    same = [white_polyp()] * 2

    def view(seed, epoch, index):
        frames = PolypSet(same, size=64, augment=True, seed=seed)
        frames.set_epoch(epoch)
        return frames[index][0]

    views = [view(0, 0, 0), view(1, 0, 0), view(0, 1, 0), view(0, 0, 1)]
    assert all((views[i] - views[j]).abs().max() > 0.05 for i in range(4) for j in range(i))


def test_items_leave_global_random_numbers_alone():
    frames = PolypSet(CASES, size=48, augment=True)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    frames[0]
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_mask_moves_with_its_image():
    """A polyp that is brighter than all else stays under its mask, whatever the view."""
    frames = PolypSet([white_polyp()], size=64, augment=True)
    areas, middles = [], []
    for epoch in range(30):
        frames.set_epoch(epoch)
        image, mask = frames[0]
        bright = image.mean(dim=0) > (0.65 - np.mean(MEAN)) / np.mean(STD)
        found = mask[0] > 0
        dice = 2 * (bright & found).sum() / (bright.sum() + found.sum())
        assert dice > 0.85
        areas.append(found.float().mean().item())
        middles.append(torch.nonzero(found).float().mean(dim=0))
    assert max(areas) > 1.2 * min(areas)
    assert torch.stack(middles).std(dim=0).min() > 5  # pixels


def test_views_stay_in_range():
    augmentation = Augmentation()
    image, mask = torch.rand(3, 40, 40), torch.ones(1, 40, 40)
    before = image.clone()
    for seed in range(20):
        view, moved = augmentation(image, mask, seed=seed)
        assert view.shape == image.shape
        assert view.min() >= 0
        assert view.max() <= 1
        assert moved.shape == mask.shape
    assert torch.equal(image, before)
