"""Lesions lost and invented, on masks one can check by eye."""

import numpy as np
import pytest

from secateur.metrics.lesions import has_false_lesion, lesion_ious, lost_lesions, seen_lesions


def drawn(*rows):
    return np.array([[mark == "#" for mark in row] for row in rows])


TWO = drawn(
    "####........",
    "####........",
    "........####",
    "........####",
)


def test_each_lesion_has_the_iou_of_its_best_component():
    found = drawn(
        "###..#......",
        "###.........",
        "........#.##",
        "............",
    )
    # First: 6 of 8 pixels. Second: the pieces of 1 and 2 pixels are not added up.
    np.testing.assert_allclose(lesion_ious(found, TWO), [6 / 8, 2 / 8])


def test_one_blob_over_two_lesions_is_taken_whole():
    found = np.ones_like(TWO)
    np.testing.assert_allclose(lesion_ious(found, TWO), [8 / 48, 8 / 48])


def test_corners_connect():
    diagonal = np.eye(5, dtype=bool)
    np.testing.assert_allclose(lesion_ious(diagonal, diagonal), [1.0])


def test_nothing_found_and_nothing_there():
    empty = np.zeros_like(TWO)
    np.testing.assert_array_equal(lesion_ious(empty, TWO), [0, 0])
    assert lesion_ious(TWO, empty).shape == (0,)


@pytest.mark.parametrize(
    ("dense", "pruned", "lost"),
    [
        ((0, 10), (0, 0), True),
        ((0, 10), (9, 10), False),  # exactly 0.1 is not below
        ((0, 10), (9, 11), True),  # 1 of 11
        ((0, 5), (0, 0), True),  # exactly 0.5 is seen
        ((0, 4), (0, 0), False),  # not seen, so not lost
    ],
)
def test_lost_means_seen_at_one_half_and_below_one_tenth(dense, pruned, lost):
    def columns(first, last):
        mask = np.zeros((5, 40), bool)
        mask[2, first:last] = True
        return mask

    truth = columns(0, 10)
    np.testing.assert_array_equal(seen_lesions(columns(*dense), truth), [dense != (0, 4)])
    np.testing.assert_array_equal(lost_lesions(columns(*pruned), truth, dense=columns(*dense)), [lost])


def test_only_the_lesion_that_vanished_is_lost():
    found = TWO.copy()
    found[:, 6:] = False
    np.testing.assert_array_equal(lost_lesions(found, TWO, dense=TWO), [False, True])


def test_a_false_lesion_shares_no_pixel_with_the_truth():
    truth = np.zeros((50, 40), bool)  # 0.05 % of it is one pixel
    truth[10:20, 10:20] = True
    found = truth.copy()
    found[19:25, 19:25] = True  # grows out of the lesion: no new one
    assert not has_false_lesion(found, truth)
    found[40, 30] = True
    assert has_false_lesion(found, truth)


def test_touching_from_outside_is_not_sharing():
    truth = np.zeros((20, 20), bool)
    truth[:, :10] = True
    assert has_false_lesion(~truth, truth)


def test_specks_below_one_in_two_thousand_are_no_lesion():
    truth = np.zeros((100, 100), bool)  # five pixels are the limit
    found = truth.copy()
    found[50, 50:54] = True
    assert not has_false_lesion(found, truth)
    found[50, 54] = True
    assert has_false_lesion(found, truth)
