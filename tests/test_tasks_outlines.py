"""Pictures of nuclei: what is outlined and what is left alone."""

import numpy as np
import pytest

from secateur.errors import InputError
from secateur.tasks.outlines import GREEN, outline

SHAPE = (60, 90)


def boxes(*corners):
    labels = np.zeros(SHAPE, np.int32)
    for number, (top, left, height, width) in enumerate(corners, start=1):
        labels[top : top + height, left : left + width] = number
    return labels


def picture(shape=SHAPE):
    return np.random.default_rng(0).integers(100, 180, (*shape, 3), dtype=np.uint8)


def test_the_outline_is_the_inner_edge_of_every_nucleus():
    labels = boxes((10, 10, 8, 6), (10, 16, 8, 6))  # they touch
    image = picture()
    drawn = outline(image, labels, (1, 2, 3))
    expected = np.zeros(SHAPE, bool)
    for left in (10, 16):
        expected[10:18, left : left + 6] = True
        expected[11:17, left + 1 : left + 5] = False
    np.testing.assert_array_equal((drawn == (1, 2, 3)).all(axis=-1), expected)
    np.testing.assert_array_equal(drawn[~expected], image[~expected])


def test_lines_are_twice_as_wide_in_a_whole_tile():
    labels = np.zeros((1000, 1000), np.int32)
    labels[100:200, 300:400] = 1
    changed = (outline(picture(labels.shape), labels) == GREEN).all(axis=-1)
    assert changed.sum() == 100**2 - 96**2


def test_the_image_given_is_left_alone_and_nothing_to_draw_changes_nothing():
    image = picture()
    image.flags.writeable = False
    outline(image, boxes((5, 5, 10, 10)))
    drawn = outline(image, np.zeros(SHAPE, np.int32))
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_sizes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"shape \(60, 90, 3\) and labels of shape \(60, 89\)"):
        outline(picture(), boxes((5, 5, 10, 10))[:, :-1])
