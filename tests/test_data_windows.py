"""Windows of tiles: distance targets against a slow loop, covering, views that depend on seed, epoch and index."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from secateur.data.distance import distance_targets
from secateur.data.windows import NucleiSet, draw_view, mirrored_to, to_tensor


@dataclass(frozen=True)
class DrawnTile:
    id: str
    labels: np.ndarray
    grey: bool = False

    def read(self):
        rng = np.random.default_rng(self.labels.size)
        image = rng.integers(60, 250, (*self.labels.shape, 3), dtype=np.uint8)
        image[..., 0] = np.arange(self.labels.shape[1]) % 251  # tells where a window was cut
        return (image[..., :1].repeat(3, axis=2) if self.grey else image), self.labels


def blobs(shape, n=6, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number in range(1, n + 1):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        labels[(rows - row) ** 2 + (columns - column) ** 2 < rng.uniform(3, 9) ** 2] = number
    return np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.int32)


def distances_by_loops(labels):
    places = np.argwhere(np.ones_like(labels, bool))
    values = labels.ravel()
    targets = np.zeros(labels.size)
    for at in range(labels.size):
        if values[at]:
            others = places[values != values[at]]
            targets[at] = np.sqrt(((others - places[at]) ** 2).sum(axis=1).min())
    for label in range(1, labels.max() + 1):
        targets[values == label] /= targets[values == label].max()
    return targets.reshape(labels.shape)


@pytest.mark.parametrize("seed", range(8))
def test_distances_equal_a_slow_loop(seed):
    labels = blobs((26, 31), seed=seed)  # some touch, some are cut by the border
    targets = distance_targets(labels)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets, distances_by_loops(labels), rtol=1e-6)


def test_distances_of_small_gapped_and_filling_labels():
    labels = np.zeros((9, 9), np.int32)
    labels[1, 1], labels[4:9, 4:9] = 2, 5
    targets = distance_targets(labels)
    assert targets[1, 1] == 1
    assert np.unravel_index(targets.argmax(), (9, 9)) == (1, 1)
    assert targets[8, 8] == 1  # goes on behind the border: deepest there
    assert targets[4, 4] == pytest.approx(0.2)
    assert (distance_targets(np.ones((5, 4), np.int32)) == 1).all()
    assert not distance_targets(np.zeros((5, 4), np.int32)).any()


def windows_of(*tiles, size=32, augment=False, seed=0):
    return NucleiSet(tiles, size=size, augment=augment, seed=seed)


def test_unaugmented_windows_cover_every_pixel_of_image_and_target():
    tile = DrawnTile("a", blobs((70, 100), 14))
    image, labels = tile.read()
    samples = windows_of(tile)
    assert len(samples) == 3 * 4
    target = torch.from_numpy(np.stack((labels > 0, distance_targets(labels))).astype(np.float32))
    covered = np.zeros(labels.shape, int)
    for window, truth in (samples[index] for index in range(len(samples))):
        assert (window.shape, truth.shape) == ((3, 32, 32), (2, 32, 32))
        column = round(float(window[0, 0, 0]) * 255)
        rows = [r for r in range(39) if torch.equal(to_tensor(image)[0, :, r : r + 32, column : column + 32], window)]
        assert len(rows) == 1
        place = np.s_[rows[0] : rows[0] + 32, column : column + 32]
        torch.testing.assert_close(target[(slice(None), *place)], truth)
        covered[place] += 1
    assert covered.min() == 1


def test_samples_are_dealt_round_the_cases():
    samples = windows_of(DrawnTile("large", blobs((64, 64))), DrawnTile("small", blobs((32, 40))))
    assert (len(samples), samples.ids) == (6, ("large", "small"))
    first = samples.unaugmented(2)
    assert len(first) == 2
    assert not torch.equal(first[0][1], first[1][1])
    assert torch.equal(first[1][1], windows_of(DrawnTile("small", blobs((32, 40))))[0][1])


def test_items_depend_on_seed_epoch_and_index_alone():
    tile = DrawnTile("a", blobs((70, 70)))
    samples, again, other = (windows_of(tile, augment=True, seed=seed) for seed in (3, 3, 4))
    for each in (samples, again, other):
        each.set_epoch(2)
    expected = [samples[index] for index in (0, 1, 2)]
    for index in (2, 0, 1):  # in another order
        for found, wanted in zip(again[index], expected[index], strict=True):
            assert torch.equal(found, wanted)
    assert not torch.equal(other[1][0], expected[1][0])
    samples.set_epoch(3)
    assert not torch.equal(samples[1][0], expected[1][0])
    assert not torch.equal(expected[0][0], expected[1][0])


def test_views_move_image_and_target_together():
    """The image is the mask here, so whatever is flipped, turned or cut must stay equal to it."""

    @dataclass(frozen=True)
    class Mask:
        id: str = "mask"

        def read(self):
            labels = blobs((60, 80), 12)
            return np.where(labels[..., None] > 0, 200, 60).repeat(3, axis=2).astype(np.uint8), labels

    samples = windows_of(Mask(), augment=True)
    shapes = set()
    for index in range(len(samples)):
        image, target = samples[index]
        dark, bright = image[0].min(), image[0].max()
        assert bright - dark > 0.3
        torch.testing.assert_close((image[0] > (dark + bright) / 2).float(), target[0])
        assert torch.equal(target[1] > 0, target[0] > 0)
        shapes.add(target[0].sum().item())
    assert len(shapes) > 3


def test_a_window_is_seen_in_all_eight_orientations():
    labels = np.zeros((32, 32), np.int32)
    labels[4:20, 6:10], labels[16:20, 10:14] = 1, 1  # an L: no orientation equals another
    samples = windows_of(DrawnTile("L", labels), augment=True)
    seen = set()
    for epoch in range(60):
        samples.set_epoch(epoch)
        seen.add(samples[0][1][0].numpy().tobytes())
    mask = (labels > 0).astype(np.float32)
    turned = {np.rot90(each, turns).tobytes() for each in (mask, mask[:, ::-1]) for turns in range(4)}
    assert len(turned) == 8
    assert seen == turned


def test_all_eight_orientations_and_both_ends_of_the_ranges_are_drawn():
    views = [draw_view(np.random.default_rng((0, index))) for index in range(400)]
    assert {(view.flipped, view.turns) for view in views} == {(f, t) for f in (False, True) for t in range(4)}
    for values, low, high in (
        ([gain for view in views for gain in view.gains], 0.8, 1.2),
        ([offset for view in views for offset in view.offsets], -0.05, 0.05),
        ([view.light for view in views], 0.9, 1.1),
        ([view.gamma for view in views], 0.85, 1.15),
    ):
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high


def test_colours_vary_but_a_grey_tile_stays_grey():
    stained, grey = (windows_of(DrawnTile("a", blobs((64, 64)), grey=grey), augment=True) for grey in (False, True))
    means = torch.stack([stained[index][0].mean(dim=(1, 2)) for index in range(4)])
    assert (means[:, 1:].std(dim=0) > 0.01).all()
    for index in range(4):
        image, _ = grey[index]
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])


def test_tiles_smaller_than_a_window_are_mirrored():
    tile = DrawnTile("a", blobs((20, 12), 3))
    image, labels = tile.read()
    window, target = windows_of(tile)[0]
    assert torch.equal(window[:, :20, :12], to_tensor(image)[0])
    assert torch.equal(window[:, :, 12:24], window[:, :, :12].flip(2))
    assert torch.equal(target[:, 20:], target[:, 8:20].flip(1))
    np.testing.assert_array_equal(target[1, :20, :12], distance_targets(labels))
    assert mirrored_to(image, 12).shape == (20, 12, 3)
