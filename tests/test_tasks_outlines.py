"""Pictures of nuclei: what is outlined, in which colour, and what is left alone."""

import numpy as np
import pytest

from secateur.errors import InputError
from secateur.tasks.outlines import FATE_COLOURS, fate_overlay, outline

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
    changed = (outline(picture(labels.shape), labels) == FATE_COLOURS["kept"]).all(axis=-1)
    assert changed.sum() == 100**2 - 96**2


# truth: kept, lost, two merged, one split; and found: a spurious one
TRUTH = boxes((5, 5, 10, 10), (5, 25, 10, 10), (5, 45, 10, 8), (5, 53, 10, 8), (25, 5, 10, 20))
FOUND = boxes((5, 5, 10, 9), (5, 45, 10, 16), (25, 5, 10, 10), (25, 15, 10, 10), (40, 60, 10, 10))


def test_every_fate_has_its_colour():
    image = picture()
    drawn = fate_overlay(image, found=FOUND, truth=TRUTH)
    corners = {"kept": [(5, 5)], "lost": [(5, 25)], "merged": [(5, 45), (5, 53)], "split": [(25, 5)]}
    for fate, places in corners.items():
        for place in places:
            assert tuple(drawn[place]) == FATE_COLOURS[fate]
    assert tuple(drawn[40, 60]) == FATE_COLOURS["spurious"]
    assert (drawn[45, 65] == image[45, 65]).all()  # inside a spurious one
    assert (drawn[10, 10] == image[10, 10]).all()  # inside a kept one
    for fate, place in (("lost", (10, 30)), ("merged", (10, 49)), ("split", (30, 15))):
        tinted = np.floor(image[place] * 0.6 + np.array(FATE_COLOURS[fate]) * 0.4 + 0.5)
        np.testing.assert_array_equal(drawn[place], tinted)
    outside = (TRUTH == 0) & (FOUND == 0)
    np.testing.assert_array_equal(drawn[outside], image[outside])


def test_the_image_given_is_left_alone_and_nothing_to_draw_changes_nothing():
    image = picture()
    image.flags.writeable = False
    fate_overlay(image, found=FOUND, truth=TRUTH)
    nothing = np.zeros(SHAPE, np.int32)
    drawn = fate_overlay(image, found=nothing, truth=nothing)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_colours_are_apart():
    colours = np.array(list(FATE_COLOURS.values()), float)
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1) + 255 * np.eye(len(colours))
    assert apart.min() > 90


def test_sizes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"shape \(60, 90, 3\) and labels of shape \(60, 89\)"):
        outline(picture(), TRUTH[:, :-1])
    with pytest.raises(InputError, match=r"labels of shape \(59, 90\)"):
        fate_overlay(picture(), found=FOUND, truth=TRUTH[1:])
