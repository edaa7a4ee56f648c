"""Instance metrics against another library, `cellseg-metrics`, which takes the found instance of largest intersection.

The paper's rule, ours, takes that of largest IoU (decision 0013). Where both choose the same, the values must be.
"""

import numpy as np
import pytest
from cellseg_metrics import aggregated_jaccard_index, panoptic_quality

from secateur.metrics.instance import instance_overlaps, instance_scores

CASES = 200


def discs(rng):
    """Up to 15 discs, the later ones over the earlier ones."""
    labels = np.zeros((60, 80), np.int32)
    rows, columns = np.indices(labels.shape)
    for number in range(1, rng.integers(2, 16)):
        row, column, radius = rng.integers(60), rng.integers(80), rng.integers(2, 9)
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return labels


def pairs():
    """Truths, and predictions that are moved, drawn anew or full of holes."""
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        truth = discs(rng)
        found = np.roll(truth, tuple(rng.integers(-3, 4, 2)), (0, 1)) if rng.random() < 0.5 else discs(rng)
        yield truth, np.where(rng.random(truth.shape) < rng.choice([0, 0.02]), 0, found)


def rules_agree(truth, found):
    """Whether one found instance has both the largest intersection and the largest IoU, for every true one."""
    for number in np.unique(truth[truth > 0]):
        nucleus = truth == number
        shared = {each: np.sum(nucleus & (found == each)) for each in np.unique(found[nucleus & (found > 0)])}
        iou = {each: size / np.sum(nucleus | (found == each)) for each, size in shared.items()}
        most, best = ({each for each in of if of[each] == max(of.values())} for of in (shared, iou))
        if most != best or len(most) > 1:
            return False
    return True


def test_aji_and_panoptic_quality_are_those_of_another_library():
    compared = 0
    for truth, found in pairs():
        scores = instance_scores(instance_overlaps(found, truth))
        theirs = panoptic_quality(truth, found)
        assert (scores.pq, scores.dq) == pytest.approx((theirs["pq"], theirs["dq"]), abs=1e-6)
        assert scores.true_positive == 0 or scores.sq == pytest.approx(theirs["sq"], abs=1e-6)
        if rules_agree(truth, found):
            compared += 1
            assert scores.aji == pytest.approx(aggregated_jaccard_index(truth, found), abs=1e-9)
    assert compared > 0.8 * CASES
