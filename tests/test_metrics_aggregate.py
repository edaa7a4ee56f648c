"""Means, spreads and bootstrap intervals."""

import json
import math

import numpy as np
import pytest

from secateur.metrics.aggregate import summarize, summarize_difference


def test_mean_and_sample_deviation_over_defined_cases():
    summary = summarize([0.2, math.nan, 0.4, 0.9])
    assert summary.mean == pytest.approx(0.5)
    assert summary.std == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert (summary.n, summary.undefined) == (3, 1)


def test_interval_agrees_with_the_normal_one_for_many_cases():
    values = np.random.default_rng(1).normal(0.8, 0.1, size=800)
    half = 1.96 * values.std(ddof=1) / math.sqrt(800)
    low, high = summarize(values).ci95
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_equals_a_loop_over_all_samples_with_replacement():
    values = [0.0, 1.0, 5.0]
    means = sorted(np.mean([values[i], values[j], values[k]]) for i in range(3) for j in range(3) for k in range(3))
    low, high = summarize(values).ci95
    assert (low, high) == (means[0], means[-1])  # each end has 1/27 > 2.5 % of the samples


def test_same_seed_same_interval_other_seed_another():
    values = np.random.default_rng(0).random(30)
    assert summarize(values, seed=3) == summarize(values, seed=3)
    assert summarize(values, seed=3).ci95 != summarize(values, seed=4).ci95


def test_difference_is_paired():
    dense = np.random.default_rng(0).random(50)
    summary = summarize_difference(list(dense), list(dense - 0.01))
    assert summary.mean == pytest.approx(-0.01)
    assert summary.ci95 == pytest.approx((-0.01, -0.01))  # unpaired intervals would be some 0.15 wide


def test_difference_needs_both_values():
    summary = summarize_difference([1.0, math.nan, 3.0, 4.0], [2.0, 2.0, math.nan, 6.0])
    assert (summary.mean, summary.n, summary.undefined) == (pytest.approx(1.5), 2, 2)


def test_difference_of_other_cases_is_refused():
    with pytest.raises(ValueError, match="3 and 2"):
        summarize_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize("values", [[], [math.nan], [0.5]])
def test_record_of_too_few_cases_is_json_with_null(values):
    record = summarize(values).record()
    assert json.loads(json.dumps(record, allow_nan=False))["ci95"] == [None, None]
    assert record["mean"] == (0.5 if values == [0.5] else None)
    assert record["std"] is None
