"""The synthetic H&E slide: seeded, labelled, varied, and not solved by a threshold."""

import numpy as np
import pytest
from scipy import ndimage

from secateur.data.nuclei_synthetic import SyntheticTile
from secateur.data.sources import DataRecipe
from secateur.metrics.instance import instance_overlaps, instance_scores
from secateur.tasks.nuclei import NucleiTask

RECIPE = DataRecipe(size=96, train=16, val=2, test=3, seed=5)
TASK = NucleiTask(96)


@pytest.fixture(scope="module")
def tiles():
    return [case.read() for case in TASK.load_cases(RECIPE)["train"]]


def test_reading_twice_gives_the_same_tile():
    case = SyntheticTile("a", (3, 1), 100)
    first, second = case.read(), case.read()
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_seed_split_and_index_each_change_the_tile():
    cases, other = TASK.load_cases(RECIPE), TASK.load_cases(RECIPE.model_copy(update={"seed": 6}))
    images = [case.read()[0] for case in (cases["train"][0], cases["train"][1], cases["val"][0], other["train"][0])]
    assert all(np.mean(images[i] != images[j]) > 0.5 for i in range(4) for j in range(i))


def test_a_split_does_not_depend_on_the_size_of_the_others():
    more = RECIPE.model_copy(update={"train": 40, "val": 5})
    first, second = (TASK.load_cases(recipe)["test"][2].read()[0] for recipe in (RECIPE, more))
    np.testing.assert_array_equal(first, second)


def test_tiles_are_larger_than_a_window_and_numbered_without_gaps(tiles):
    for image, labels in tiles:
        assert (image.shape, image.dtype, labels.dtype) == ((192, 192, 3), np.uint8, np.int32)
        assert (np.bincount(labels.ravel(), minlength=1) > 0).all()


@pytest.mark.parametrize("size", [32, 61, 300])
def test_tiles_of_any_size_are_drawn(size):
    image, labels = SyntheticTile("a", (0,), size).read()
    assert image.shape == (size, size, 3)
    assert labels.shape == (size, size)


def test_nuclei_vary_touch_and_lie_in_one_piece(tiles):
    sizes = np.concatenate([np.bincount(labels.ravel())[1:] for _, labels in tiles])
    assert 100 < np.median(sizes) < 500  # Kumar: 297
    assert np.percentile(sizes, 90) > 3 * np.percentile(sizes, 10)
    assert 0.08 < np.mean([np.mean(labels > 0) for _, labels in tiles]) < 0.4  # Kumar: 0.21
    pieces = sum(ndimage.label(labels == n, np.ones((3, 3)))[1] for _, labels in tiles for n in np.unique(labels)[1:])
    assert pieces < 1.02 * len(sizes)
    regions = sum(ndimage.label(labels > 0, np.ones((3, 3)))[1] for _, labels in tiles)
    assert regions < 0.75 * len(sizes)  # what connected components would make of them


def test_colours_are_those_of_the_two_stains(tiles):
    inside = np.array([image[labels > 0].mean(axis=0) for image, labels in tiles])
    outside = np.array([image[labels == 0].mean(axis=0) for image, labels in tiles])
    assert (inside.mean(axis=1) < outside.mean(axis=1)).all()
    assert (inside[:, 2] > inside[:, 0]).all()  # nuclei are blue to purple
    assert (outside[:, 0] > outside[:, 1]).all()  # the rest is pink
    assert (outside.std(axis=0) > 6).all()  # and stained differently each time


def test_no_threshold_finds_the_nuclei(tiles):
    """Even the best grey level, chosen with the truth in hand, leaves nuclei joined and tissue mistaken for them."""

    def mean_aji(level):
        found = [ndimage.label(image.mean(axis=-1) < level)[0].astype(np.int32) for image, _ in tiles]
        return np.mean(
            [instance_scores(instance_overlaps(f, labels)).aji for f, (_, labels) in zip(found, tiles, strict=True)]
        )

    assert max(mean_aji(level) for level in range(80, 200, 10)) < 0.5
