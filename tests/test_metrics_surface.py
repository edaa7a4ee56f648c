"""HD95 against a slow loop, MONAI and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from secateur.metrics.surface import hd95


def blobs(seed, shape):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return noise > 0.5 * noise.max()


def brute_force(first, second, spacing):
    """The definition, pixel by pixel and pair by pair."""

    def surface(mask):
        points = []
        for point in itertools.product(*map(range, mask.shape)):
            neighbours = [
                tuple(np.add(point, step * np.eye(mask.ndim, dtype=int)[axis]))
                for axis in range(mask.ndim)
                for step in (-1, 1)
            ]
            outside = any(
                not all(0 <= i < n for i, n in zip(q, mask.shape, strict=True)) or not mask[q] for q in neighbours
            )
            if mask[point] and outside:
                points.append(np.multiply(point, spacing))
        return points

    def directed(source, target):
        distances = sorted(min(math.dist(a, b) for b in target) for a in source)
        rank = 0.95 * (len(distances) - 1)
        low, part = int(rank), rank - int(rank)
        high = min(low + 1, len(distances) - 1)
        return distances[low] * (1 - part) + distances[high] * part

    a, b = surface(first), surface(second)
    return max(directed(a, b), directed(b, a))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 3.0)])
def test_equals_the_slow_definition(seed, spacing):
    first, second = blobs(seed, (17, 22)), blobs(seed + 100, (17, 22))
    assert hd95(first, second, spacing=spacing) == pytest.approx(brute_force(first, second, spacing), rel=1e-12)


def test_equals_the_slow_definition_in_a_volume():
    first, second = blobs(1, (6, 9, 8)), blobs(2, (6, 9, 8))
    spacing = (2.5, 1.0, 0.8)
    assert hd95(first, second, spacing=spacing) == pytest.approx(brute_force(first, second, spacing), rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 warns about its own call
@pytest.mark.parametrize("seed", range(4))
def test_equals_monai(seed):
    from monai.metrics import compute_hausdorff_distance

    first, second = blobs(seed, (40, 33)), blobs(seed + 50, (40, 33))
    theirs = compute_hausdorff_distance(
        torch.from_numpy(first)[None, None], torch.from_numpy(second)[None, None], percentile=95
    )
    assert hd95(first, second) == pytest.approx(float(theirs), rel=1e-5)


def test_a_shifted_square_is_as_far_as_its_shift():
    first, second = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    first[10:20, 10:20] = True
    second[10:20, 17:27] = True
    assert hd95(first, second) == pytest.approx(7.0)
    assert hd95(first, second, spacing=(1.0, 0.5)) == pytest.approx(3.5)


def test_the_far_edge_of_the_image_counts_as_outside():
    full, inner = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    inner[3:6, 3:6] = True
    assert hd95(full, inner) == pytest.approx(brute_force(full, inner, (1, 1)))


@pytest.mark.parametrize(("found", "truth"), [(False, False), (True, False), (False, True)])
def test_is_undefined_if_a_mask_is_empty(found, truth):
    assert math.isnan(hd95(np.full((4, 4), found), np.full((4, 4), truth)))


def test_spacing_must_fit_the_axes():
    with pytest.raises(ValueError, match=r"3 values for masks with 2 axes"):
        hd95(np.ones((4, 4), bool), np.ones((4, 4), bool), spacing=(1, 1, 1))
