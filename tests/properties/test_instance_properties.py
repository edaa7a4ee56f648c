"""What must hold for any two label images: no value depends on numbers, order or orientation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from secateur.metrics.fates import fates
from secateur.metrics.instance import instance_overlaps, instance_scores
from secateur.metrics.overlap import overlap

VALUES = ("dice", "aji", "dq", "sq", "pq", "f1")
SYMMETRIC = ("dice", "dq", "sq", "pq", "f1")  # AJI is not
TRUE_FATES = ("kept", "merged", "split", "lost")

shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))
labels = st.integers(0, 4)
pairs = shapes.flatmap(lambda shape: st.tuples(*[npst.arrays(np.int32, shape, elements=labels)] * 2))
renumberings = st.lists(st.integers(1, 2**31 - 1), min_size=4, max_size=4, unique=True)
moves = st.sampled_from([np.fliplr, np.flipud, np.transpose, np.rot90])
often = settings(max_examples=100, deadline=None)


def scores(found, truth):
    return instance_scores(instance_overlaps(found, truth))


def renumbered(image, numbers):
    return np.array([0, *numbers], np.int64)[image]


def assert_same(first, second, names=VALUES):
    """Equal results, where the sum of IoUs may be added up in another order."""
    for name in names:
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-12, err_msg=name)


@often
@given(pair=pairs)
def test_bounds(pair):
    result = scores(*pair)
    for name in VALUES:
        value = getattr(result, name)
        assert 0 <= value <= 1 or (name == "sq" and math.isnan(value)), name


@often
@given(pair=pairs)
def test_perfect_prediction(pair):
    truth = pair[0].copy()
    truth[0, 0] = 1
    result = scores(truth, truth)
    assert [getattr(result, name) for name in VALUES] == [1.0] * len(VALUES)


@often
@given(pair=pairs, found_numbers=renumberings, true_numbers=renumberings)
def test_numbers_do_not_matter(pair, found_numbers, true_numbers):
    found, truth = pair
    assert_same(scores(renumbered(found, found_numbers), renumbered(truth, true_numbers)), scores(found, truth))


@often
@given(pair=pairs, move=moves)
def test_flips_and_turns_change_nothing(pair, move):
    found, truth = pair
    assert_same(scores(move(found), move(truth)), scores(found, truth))


@often
@given(pair=pairs)
def test_the_order_in_memory_changes_nothing(pair):
    found, truth = pair
    assert scores(np.asfortranarray(found), truth) == scores(found, truth)


@often
@given(pair=pairs, seed=st.integers(0, 1000))
def test_only_the_joint_counts_of_pixels_matter(pair, seed):
    """Shuffling the pixels of both images together changes every run of equal pixels, and no overlap."""
    found, truth = (image.ravel() for image in pair)
    order = np.random.default_rng(seed).permutation(truth.size)
    assert_same(scores(found[order], truth[order]), scores(found, truth))


@often
@given(pair=pairs)
def test_symmetry(pair):
    found, truth = pair
    assert_same(scores(found, truth), scores(truth, found), SYMMETRIC)


@often
@given(pair=pairs)
def test_counts_add_up(pair):
    found, truth = pair
    result = scores(found, truth)
    assert result.true_positive + result.false_positive == np.setdiff1d(found, [0]).size
    assert result.true_positive + result.false_negative == np.setdiff1d(truth, [0]).size
    assert result.foreground == overlap(found > 0, truth > 0)


@often
@given(pair=pairs)
def test_aji_is_at_most_the_iou_of_the_foregrounds(pair):
    """Its numerator is part of their intersection, and its denominator covers their union."""
    result = scores(*pair)
    assert result.aji <= result.foreground.iou


@often
@given(pair=pairs)
def test_aji_of_single_instances_is_their_iou(pair):
    found, truth = (image > 0 for image in pair)
    assert scores(found.astype(int), truth.astype(int)).aji == pytest.approx(overlap(found, truth).iou)


@often
@given(pair=pairs)
def test_every_true_instance_has_one_fate(pair):
    found, truth = pair
    table = instance_overlaps(found, truth)
    result = fates(table)
    together = np.concatenate([getattr(result, name) for name in TRUE_FATES])
    np.testing.assert_array_equal(np.sort(together), np.setdiff1d(truth, [0]))
    assert result.kept.size == instance_scores(table).true_positive
    assert result.spurious.size <= instance_scores(table).false_positive
    assert np.isin(result.spurious, found).all()


@often
@given(pair=pairs, found_numbers=renumberings, true_numbers=renumberings)
def test_fates_follow_the_numbers(pair, found_numbers, true_numbers):
    found, truth = pair
    before = fates(instance_overlaps(found, truth))
    after = fates(instance_overlaps(renumbered(found, found_numbers), renumbered(truth, true_numbers)))
    for name in TRUE_FATES:
        expected = np.sort(renumbered(getattr(before, name), true_numbers))
        np.testing.assert_array_equal(getattr(after, name), expected)
    np.testing.assert_array_equal(after.spurious, np.sort(renumbered(before.spurious, found_numbers)))
