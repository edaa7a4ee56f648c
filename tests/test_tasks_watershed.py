"""Merging the branches: drawn maps with known nuclei, each constant felt, and constants chosen by AJI."""

import time

import numpy as np
import pytest
from pydantic import ValidationError

from secateur.data.distance import distance_targets
from secateur.errors import DataError
from secateur.metrics.instance import instance_overlaps, instance_scores
from secateur.tasks.watershed import Merge, Prediction, candidates, choose_constants, merge_branches


def disc(shape, row, column, radius):
    rows, columns = np.indices(shape)
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def discs(*places, shape=(60, 60)):
    labels = np.zeros(shape, np.int32)
    for number, place in enumerate(places, start=1):
        labels[disc(shape, *place) & (labels == 0)] = number
    return labels


def perfect(labels):
    return (labels > 0).astype(np.float32), distance_targets(labels)


def aji(found, truth):
    return instance_scores(instance_overlaps(found, truth)).aji


TOUCHING = discs((20, 18, 10), (20, 37, 10), (44, 30, 9))


def test_perfect_maps_give_the_nuclei_back():
    found = merge_branches(*perfect(TOUCHING), Merge())
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found > 0, TOUCHING > 0)
    assert aji(found, TOUCHING) > 0.97
    assert np.unique(found).tolist() == [0, 1, 2, 3]
    assert (found[20, 18], found[20, 37], found[44, 30]) == (1, 2, 3)  # in reading order


def test_touching_nuclei_are_parted_by_the_distances_alone():
    mask = (TOUCHING > 0).astype(np.float32)
    one_hill = distance_targets((TOUCHING > 0).astype(np.int32) + (TOUCHING == 3))
    assert merge_branches(mask, one_hill * 0 + mask, Merge(smoothing=0)).max() >= 2
    joined = np.where(TOUCHING == 3, 1, np.where(TOUCHING > 0, one_hill, 0)).astype(np.float32)
    joined[20, 10:45] = 1.0
    joined[20, 27] = 2.0  # one summit between the two
    assert merge_branches(mask, joined, Merge(spacing=1.5)).max() == 2


def test_the_mask_is_cut_at_the_threshold():
    probability = np.where(TOUCHING == 3, 0.5, np.where(TOUCHING > 0, 0.49, 0.1)).astype(np.float32)
    _, distance = perfect(TOUCHING)
    np.testing.assert_array_equal(merge_branches(probability, distance, Merge()) > 0, TOUCHING == 3)
    np.testing.assert_array_equal(merge_branches(probability, distance, Merge(threshold=0.4)) > 0, TOUCHING > 0)


def test_small_holes_are_filled_and_large_ones_stay():
    labels = discs((30, 30, 20))
    small, large = disc(labels.shape, 24, 30, 3), disc(labels.shape, 38, 30, 6)
    probability, distance = perfect(labels)
    probability[small | large] = 0
    found = merge_branches(probability, distance, Merge(largest_hole=int(small.sum())))
    np.testing.assert_array_equal(found > 0, (labels > 0) & ~large)
    found = merge_branches(probability, distance, Merge(largest_hole=int(small.sum()) - 1))
    np.testing.assert_array_equal(found > 0, (labels > 0) & ~large & ~small)


def test_what_is_too_small_is_dropped():
    labels = discs((20, 20, 10), (50, 50, 3))
    size = int((labels == 2).sum())
    assert merge_branches(*perfect(labels), Merge(smallest=size)).max() == 2
    np.testing.assert_array_equal(merge_branches(*perfect(labels), Merge(smallest=size + 1)) > 0, labels == 1)


def test_a_piece_too_small_is_dropped_after_the_watershed_too():
    """A nucleus with a knob of 14 pixels that has a summit of its own: the knob goes, the numbers close up."""
    labels = discs((30, 30, 10))
    labels[19:22, 29:32] = 2
    probability, distance = perfect(labels)
    found = merge_branches(probability, distance, Merge(smallest=20, smoothing=0, spacing=0.1))
    assert np.unique(found).tolist() == [0, 1]
    assert not found[20, 30]


def test_smoothing_and_spacing_join_what_noise_would_split():
    labels = discs((30, 30, 20))
    probability, distance = perfect(labels)
    noisy = (distance + 0.1 * np.random.default_rng(0).standard_normal(distance.shape)).astype(np.float32)
    rough = merge_branches(probability, noisy, Merge(smoothing=0, spacing=0.05, smallest=5)).max()
    assert rough > 5
    assert merge_branches(probability, noisy, Merge(smoothing=0.2, spacing=0.05)).max() < rough
    assert merge_branches(probability, noisy, Merge(smoothing=0.0, spacing=0.8)).max() == 1


def test_both_scale_with_the_nuclei():
    """The same drawing three times as large is merged the same way, with the same constants."""
    rng = np.random.default_rng(1)
    places = [(rng.uniform(10, 110), rng.uniform(10, 110), rng.uniform(5, 9)) for _ in range(30)]
    small = discs(*places, shape=(120, 120))
    large = discs(*[(3 * r + 1, 3 * c + 1, 3 * d) for r, c, d in places], shape=(360, 360))
    counts = [merge_branches(*perfect(labels), Merge(smallest=0)).max() for labels in (small, large)]
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize("low", [0.0, 0.2])
def test_a_region_in_the_shadow_of_a_higher_one_is_a_nucleus_too(low):
    """Its highest pixel is no summit of the neighbourhood, which reaches into the other region."""
    labels = np.zeros((30, 40), np.int32)
    labels[5:25, 5:19], labels[5:25, 20:34] = 1, 2
    distance = np.where(labels == 1, 1.0, np.where(labels == 2, low, 0.0)).astype(np.float32)
    found = merge_branches((labels > 0).astype(np.float32), distance, Merge(smoothing=0, spacing=2))
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("level", [-1.0, 0.0, 5.0])
def test_every_region_of_the_mask_is_a_nucleus_even_without_a_summit(level):
    probability, distance = perfect(TOUCHING)
    found = merge_branches(probability, np.full_like(distance, level), Merge())
    np.testing.assert_array_equal(found > 0, TOUCHING > 0)


@pytest.mark.parametrize("level", [-1.0, 0.0, 5.0])
def test_regions_that_touch_at_a_corner_are_two_nuclei(level):
    """As the watershed floods, so regions are told apart; a dead distance branch makes every region one plateau."""
    mask = np.zeros((30, 30), np.float32)
    mask[4:14, 4:14] = mask[14:24, 14:24] = 1
    found = merge_branches(mask, np.full_like(mask, level), Merge())
    assert [np.unique(found[4:14, 4:14]).tolist(), np.unique(found[14:24, 14:24]).tolist()] == [[1], [2]]


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_empty_and_full_masks(level):
    found = merge_branches(*(np.full((20, 30), level, np.float32),) * 2, Merge())
    assert (found > 0).all() == bool(level)
    assert found.shape == (20, 30)


def test_the_same_maps_give_the_same_nuclei():
    rng = np.random.default_rng(0)
    maps = [rng.random((80, 80), dtype=np.float32) for _ in range(2)]
    np.testing.assert_array_equal(merge_branches(*maps, Merge(smallest=3)), merge_branches(*maps, Merge(smallest=3)))


def predictions():
    rng = np.random.default_rng(0)
    for _ in range(2):
        truth = discs(
            *[(rng.uniform(5, 95), rng.uniform(5, 95), rng.uniform(5, 9)) for _ in range(25)], shape=(100, 100)
        )
        probability, distance = perfect(truth)
        noise = 0.15 * rng.standard_normal(distance.shape)
        yield Prediction(probability, (distance + noise).astype(np.float32), truth)


def test_the_constants_with_the_highest_mean_aji_are_chosen():
    among = (Merge(smoothing=0, spacing=0), Merge(smoothing=0.15), Merge(smoothing=1.0), Merge(smoothing=0.15))
    chosen = choose_constants(predictions(), among)
    scores = [
        np.mean([aji(merge_branches(p.probability, p.distance, constants), p.truth) for p in predictions()])
        for constants in among
    ]
    assert chosen is among[1]
    assert scores[1] > max(scores[0], scores[2]) + 0.1


def test_the_grid_is_small_and_holds_the_defaults():
    assert Merge() in candidates()
    assert len(set(candidates())) == len(candidates()) == 48


def test_choosing_without_a_case_is_refused():
    with pytest.raises(DataError, match="no case was given to choose the constants"):
        choose_constants([])


@pytest.mark.parametrize("field", [{"threshold": 1.0}, {"smallest": -1}, {"spacing": -0.1}, {"smoothness": 1}])
def test_constants_out_of_range_are_refused(field):
    with pytest.raises(ValidationError, match=next(iter(field))):
        Merge(**field)


@pytest.mark.slow
def test_a_tile_of_700_nuclei_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    labels = np.zeros((1000, 1000), np.int32)
    for number in range(1, 701):
        row, column = rng.integers(0, 975, 2)
        labels[row : row + 25, column : column + 25][disc((25, 25), 12, 12, rng.uniform(6, 12))] = number
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    maps = perfect(labels)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        merge_branches(*maps, Merge())
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1
