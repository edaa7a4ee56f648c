"""Overlap on drawn masks, and every empty combination."""

import math

import numpy as np
import pytest

from secateur.metrics.overlap import Overlap, overlap


def drawn(*rows):
    return np.array([[mark == "#" for mark in row] for row in rows])


def test_drawn_masks_give_the_ratios_counted_by_eye():
    truth = drawn("##..", "##..", "....")
    found = drawn(".##.", ".##.", ".#..")
    counts = overlap(found, truth)
    assert counts == Overlap(true_positive=2, false_positive=3, false_negative=2)
    assert counts.dice == pytest.approx(4 / 9)
    assert counts.iou == pytest.approx(2 / 7)
    assert counts.precision == pytest.approx(2 / 5)
    assert counts.recall == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("found", "truth", "dice", "iou", "precision", "recall"),
    [
        (False, False, 1.0, 1.0, math.nan, math.nan),
        (True, False, 0.0, 0.0, 0.0, math.nan),
        (False, True, 0.0, 0.0, math.nan, 0.0),
        (True, True, 1.0, 1.0, 1.0, 1.0),
    ],
)
def test_empty_masks_follow_the_stated_conventions(found, truth, dice, iou, precision, recall):
    counts = overlap(np.full((3, 4), found), np.full((3, 4), truth))
    np.testing.assert_equal((counts.dice, counts.iou, counts.precision, counts.recall), (dice, iou, precision, recall))


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(3, 4\)"):  # these would broadcast
        overlap(np.ones((1, 4), bool), np.ones((3, 4), bool))
