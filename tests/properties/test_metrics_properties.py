"""One table of metrics and of the properties each of them must have."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from secateur.metrics.lesions import lesion_ious
from secateur.metrics.overlap import overlap
from secateur.metrics.surface import hd95

METRICS = {
    "dice": lambda found, truth: overlap(found, truth).dice,
    "iou": lambda found, truth: overlap(found, truth).iou,
    "precision": lambda found, truth: overlap(found, truth).precision,
    "recall": lambda found, truth: overlap(found, truth).recall,
    "hd95": hd95,
    "best lesion": lambda found, truth: max(lesion_ious(found, truth), default=math.nan),
}
PERFECT = dict.fromkeys(METRICS, 1.0) | {"hd95": 0.0}
UPPER = dict.fromkeys(METRICS, 1.0) | {"hd95": math.inf}
SYMMETRIC = ["dice", "iou", "hd95", "best lesion"]

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
pairs = shapes.flatmap(lambda shape: st.tuples(*[npst.arrays(bool, shape)] * 2))
moves = st.sampled_from([np.fliplr, np.flipud, np.transpose, np.rot90])
every_metric = pytest.mark.parametrize("name", METRICS)


@every_metric
@settings(max_examples=60, deadline=None)
@given(pair=pairs)
def test_bounds(name, pair):
    value = METRICS[name](*pair)
    assert math.isnan(value) or 0 <= value <= UPPER[name]


@every_metric
@settings(max_examples=40, deadline=None)
@given(pair=pairs)
def test_perfect_prediction(name, pair):
    truth = pair[0].copy()
    truth[0, 0] = True
    assert METRICS[name](truth, truth) == PERFECT[name]


@pytest.mark.parametrize("name", SYMMETRIC)
@settings(max_examples=60, deadline=None)
@given(pair=pairs)
def test_symmetry(name, pair):
    found, truth = pair
    if name == "best lesion" and not (found.any() and truth.any()):
        return  # no lesion is undefined, no prediction is zero
    np.testing.assert_allclose(METRICS[name](found, truth), METRICS[name](truth, found), rtol=1e-12)


@every_metric
@settings(max_examples=60, deadline=None)
@given(pair=pairs, move=moves)
def test_flips_and_turns_change_nothing(name, pair, move):
    found, truth = pair
    before, after = METRICS[name](found, truth), METRICS[name](move(found), move(truth))
    np.testing.assert_allclose(after, before, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(pair=pairs)
def test_dice_and_iou_are_one_measure(pair):
    counts = overlap(*pair)
    assert counts.dice == pytest.approx(2 * counts.iou / (1 + counts.iou))


@settings(max_examples=60, deadline=None)
@given(pair=pairs)
def test_dice_is_the_harmonic_mean_of_precision_and_recall(pair):
    counts = overlap(*pair)
    if counts.true_positive:
        assert counts.dice == pytest.approx(2 / (1 / counts.precision + 1 / counts.recall))


@settings(max_examples=60, deadline=None)
@given(pair=pairs, scale=st.floats(0.01, 100))
def test_hd95_scales_with_spacing(pair, scale):
    once = hd95(*pair, spacing=(1.0, 1.7))
    np.testing.assert_allclose(hd95(*pair, spacing=(scale, 1.7 * scale)), scale * once, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(pair=pairs, margin=st.integers(1, 4))
def test_background_around_the_frame_changes_only_what_it_must(pair, margin):
    found, truth = pair
    wide_found, wide_truth = np.pad(found, margin), np.pad(truth, margin)
    assert overlap(wide_found, wide_truth) == overlap(found, truth)
    np.testing.assert_allclose(hd95(wide_found, wide_truth), hd95(found, truth), rtol=1e-12)
