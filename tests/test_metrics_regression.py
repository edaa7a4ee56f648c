"""Error and correlation inside a mask, against numbers by hand and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from secateur.metrics.regression import regression_scores


def test_only_the_pixels_inside_count():
    target = np.array([[0.0, 1.0, 2.0, 9.0]])
    prediction = np.array([[1.0, 1.0, 4.0, -50.0]])
    inside = np.array([[True, True, True, False]])
    result = regression_scores(prediction, target, inside=inside)
    assert result.mse == pytest.approx((1 + 0 + 4) / 3)
    assert result.correlation == pytest.approx(3 / math.sqrt(2 * 6))  # by hand: sums of products about the means
    assert result.n == 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_agreement_with_scipy(dtype):
    rng = np.random.default_rng(0)
    target = rng.random((40, 50)).astype(dtype)
    prediction = (target + rng.normal(scale=0.3, size=target.shape)).astype(dtype)
    inside = rng.random(target.shape) < 0.4
    result = regression_scores(prediction, target, inside=inside)
    found, true = prediction[inside].astype(np.float64), target[inside].astype(np.float64)
    assert result.correlation == pytest.approx(stats.pearsonr(found, true).statistic, rel=1e-12)
    assert result.mse == pytest.approx(sum((f - t) ** 2 for f, t in zip(found, true, strict=True)) / found.size)
    assert result.n == inside.sum()


def test_correlation_is_blind_to_scale_and_offset_and_the_error_is_not():
    target = np.random.default_rng(1).random((9, 9)).astype(np.float32)
    everywhere = np.ones_like(target, dtype=bool)
    shifted = regression_scores(target * np.float32(2) + np.float32(3), target, inside=everywhere)
    assert shifted.correlation == pytest.approx(1)
    assert shifted.mse > 9
    assert regression_scores(-target, target, inside=everywhere).correlation == pytest.approx(-1)
    assert regression_scores(target, target, inside=everywhere).mse == 0


def test_what_cannot_be_said_is_undefined():
    target = np.array([[0.1, 0.2, 0.3]])
    constant = np.full_like(target, 0.1)  # whose mean is not exactly 0.1
    everywhere = np.ones_like(target, dtype=bool)
    for prediction, truth in ((constant, target), (target, constant)):
        result = regression_scores(prediction, truth, inside=everywhere)
        assert math.isnan(result.correlation)
        assert result.mse == pytest.approx((0.01 + 0.04) / 3)
    nothing = regression_scores(target, target, inside=~everywhere)
    assert math.isnan(nothing.mse)
    assert math.isnan(nothing.correlation)
    assert nothing.n == 0


def test_values_that_are_not_finite_are_refused_inside_only():
    target = np.zeros((2, 2))
    broken = np.array([[np.nan, np.inf], [0.0, 1.0]])
    with pytest.raises(ValueError, match="2 of 4 pixels"):
        regression_scores(broken, target, inside=np.ones((2, 2), bool))
    assert regression_scores(broken, target, inside=np.array([[False] * 2, [True] * 2])).mse == pytest.approx(0.5)


def test_maps_and_masks_of_other_shapes_are_refused():
    target = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(3, 4\)"):  # these would broadcast
        regression_scores(target[:1], target, inside=target == 0)
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(3, 4\)"):
        regression_scores(target, target, inside=target[:1] == 0)
