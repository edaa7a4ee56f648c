"""Instance metrics: numbers counted by eye, every empty case, and two independent implementations."""

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
import torch

from secateur.errors import DataError
from secateur.metrics.fates import fates
from secateur.metrics.instance import instance_overlaps, instance_scores


def drawn(*rows):
    """A label image: letters and digits are instances, dots the background."""
    return np.array([[0 if mark == "." else ord(mark) for mark in row] for row in rows])


def scores(found, truth):
    return instance_scores(instance_overlaps(found, truth))


def fates_of(found, truth):
    """Fates by their letters."""
    result = fates(instance_overlaps(found, truth))
    names = ("kept", "merged", "split", "lost", "spurious")
    return {name: "".join(map(chr, getattr(result, name))) for name in names if getattr(result, name).size}


TRUTH = drawn(
    "aaaa..bbbb",
    "aaaa..bbbb",
    "..........",
    "cc....dd..",
)
FOUND = drawn(
    "1111..22..",
    "1111..22..",
    ".....3....",
    "......4444",
)


def test_drawn_instances_give_the_numbers_counted_by_eye():
    """IoU: a with 1 is 1, b with 2 is 4 / 8, c has none, d with 4 is 2 / 4; 3 is extra."""
    result = scores(FOUND, TRUTH)
    assert (result.true_positive, result.false_positive, result.false_negative) == (1, 3, 3)  # 0.5 is no match
    assert (result.aji_intersection, result.aji_union) == (8 + 4 + 0 + 2, 8 + 8 + 2 + 4 + 1)
    assert result.aji == pytest.approx(14 / 23)
    assert result.dq == result.f1 == pytest.approx(1 / (1 + 3 / 2 + 3 / 2))
    assert result.sq == 1
    assert result.pq == pytest.approx(1 / 4)
    assert result.dice == pytest.approx(2 * 14 / (20 + 17))


def test_quality_is_the_mean_iou_of_the_matched_times_their_f1():
    truth = drawn("aaaaa.bbbb.c")
    found = drawn("1111..2222.3")
    result = scores(found, truth)
    assert result.sq == pytest.approx((4 / 5 + 1 + 1) / 3)
    assert result.dq == 1
    found = drawn("1111..222..3")
    result = scores(found, truth)
    assert result.sq == pytest.approx((4 / 5 + 3 / 4 + 1) / 3)
    found = drawn("1111..2.44..")
    result = scores(found, truth)  # b: 1 and 2 of 4 pixels, no match
    assert result.sq == pytest.approx(4 / 5)
    assert result.dq == pytest.approx(2 * 1 / (2 * 1 + 2 + 2))
    assert result.pq == pytest.approx(4 / 5 * 1 / 3)


def test_a_found_instance_may_be_taken_by_several():
    """Each of a and b takes 1: intersections 4 + 4, unions 10 + 10. AJI+ (one to one) would say 4 / 14."""
    assert scores(drawn("1111111111"), drawn("aaaa..bbbb")).aji == pytest.approx(8 / 20)


def test_largest_iou_wins_over_largest_intersection():
    """With a: 1 shares 4 of 15 pixels, 2 shares 2 of 6. Taking 1 would give 4 / (15 + 2)."""
    truth = drawn("aaaaaa..........")
    assert scores(drawn("221111111111111."), truth).aji == pytest.approx(2 / (6 + 13))


def test_an_even_split_counts_one_half_only():
    assert scores(drawn("11112222"), drawn("aaaaaaaa")).aji == pytest.approx(4 / (8 + 4))


def test_of_equal_ious_the_larger_intersection_wins():
    """With a, one shares 1 of 4 pixels and the other 2 of 8. Taking the first would give 1 / (4 + 6)."""
    for found in ("1.222222", "2.111111"):
        assert scores(drawn(found), drawn("aaaa....")).aji == pytest.approx(2 / (8 + 1))


def named(found, order):
    """The same instances, numbered in another order."""
    return drawn(found.translate(str.maketrans("xyz", order)))


every_order = pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("123")])


@every_order
def test_two_that_are_tied_between_the_same_two_take_one_each(order):
    """All four pairs share 2 pixels of 6. If both took x, the 4 pixels of y would be left over."""
    assert scores(named("xxyyxxyy", order), drawn("aaaabbbb")).aji == pytest.approx((2 + 2) / (6 + 6))


@every_order
def test_a_chain_of_ties_leaves_nothing_over(order):
    """c takes x; so a, tied between x and y, takes y; so b, tied between y and z, takes z."""
    found, truth = named("xxyyyyzzxxzz", order), drawn("aaaabbbbcc..")
    assert scores(found, truth).aji == pytest.approx((2 + 2 + 2) / (6 + 6 + 4))


EMPTY, SOME = np.zeros((3, 4), np.uint8), np.full((3, 4), 7, np.uint8)


@pytest.mark.parametrize(
    ("found", "truth", "value", "sq"),
    [(EMPTY, EMPTY, 1.0, math.nan), (SOME, EMPTY, 0.0, math.nan), (EMPTY, SOME, 0.0, math.nan), (SOME, SOME, 1.0, 1.0)],
)
def test_empty_images_follow_the_stated_conventions(found, truth, value, sq):
    result = scores(found, truth)
    assert (result.dice, result.aji, result.pq, result.dq, result.f1) == (value,) * 5
    np.testing.assert_equal(result.sq, sq)


def test_without_a_match_quality_is_zero_and_sq_undefined():
    result = scores(drawn("1..."), drawn("aaaa"))
    assert (result.pq, result.dq) == (0, 0)
    assert math.isnan(result.sq)
    assert result.aji == 1 / 4


def test_an_image_without_pixels_is_empty():
    assert scores(np.zeros((0, 4), int), np.zeros((0, 4), int)).aji == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_every_integer_type_and_gap_gives_the_same(dtype):
    expected = scores(FOUND, TRUTH)
    stretched = np.where(TRUTH > 0, TRUTH.astype(dtype) + dtype(np.iinfo(dtype).max - 200), dtype(0))
    assert stretched.dtype == dtype
    assert scores(FOUND.astype(dtype), stretched) == expected


def test_more_instances_than_a_small_label_type_could_pair():
    """300 x 300 pairs are more than 16 bits hold."""
    truth = np.arange(1, 301, dtype=np.uint16).repeat(4).reshape(30, 40)
    result = scores(truth, truth)
    assert (result.true_positive, result.pq, result.aji) == (300, 1, 1)


def test_volumes_count_voxels():
    truth = np.zeros((3, 4, 5), int)
    truth[1:, :2, :2] = 4  # 8 voxels
    found = np.zeros_like(truth)
    found[:2, :2, :2] = 9  # 8 voxels, 4 shared
    assert scores(found, truth).aji == pytest.approx(4 / 12)


def test_what_is_no_label_image_is_refused():
    with pytest.raises(DataError, match=r"the truth is bool.*Number the components"):
        instance_overlaps(EMPTY, EMPTY.astype(bool))
    with pytest.raises(DataError, match="the prediction is float32"):
        instance_overlaps(EMPTY.astype(np.float32), EMPTY)
    with pytest.raises(DataError, match="the prediction has the label -3; labels are 0"):
        instance_overlaps(np.full((3, 4), -3), EMPTY)
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(3, 4\)"):  # these would broadcast
        instance_overlaps(EMPTY[:1], EMPTY)


def test_fates_on_a_drawn_case():
    truth = drawn("aaaaa..bbbb.cccc..dddd.eee.....ff")
    found = drawn("1111..2222222222..3344...555..6..")
    #               a matched by 1 | b and c under 2 | d in two pieces | e touched by 5 | f not found
    assert fates_of(found, truth) == {"kept": "a", "merged": "bc", "split": "d", "lost": "ef", "spurious": "56"}


def test_the_matched_one_of_a_merge_is_kept():
    """1 has IoU 6 / 9 with a and swallows b."""
    assert fates_of(drawn("11111111.1"), drawn("aaaaaa.bbb")) == {"kept": "a", "merged": "b"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("1111112222", {"kept": "a", "spurious": "2"}),  # IoU 0.6: a match, and a piece too many
        ("1111122222", {"split": "a"}),  # IoU 0.5 is no match
        ("111..222..", {"split": "a"}),  # 6 of 10 pixels
        ("111..22...", {"lost": "a", "spurious": "12"}),  # 5 of 10 are not more than half
        ("111.......", {"lost": "a", "spurious": "1"}),
    ],
)
def test_a_split_covers_more_than_half_in_pieces(found, expected):
    assert fates_of(drawn(found), drawn("aaaaaaaaaa")) == expected


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        ("1111111111", "...aaaa..."),  # covers it and is too large, IoU 4 / 10
        ("....11111111111", "aaaaaaaaaa....."),  # covers 6 of 10, by 6 of its 11 pixels; IoU 6 / 15
    ],
)
def test_one_found_instance_that_fits_badly_is_neither_a_merge_nor_a_split(found, truth):
    assert fates_of(drawn(found), drawn(truth)) == {"lost": "a", "spurious": "1"}


def test_a_merge_goes_before_a_split():
    """1 covers 6 of 10 pixels of a and all of b, and lies in a by more than half, beside piece 2."""
    assert fates_of(drawn("222.1111111111"), drawn("aaaaaaaaaabbb.")) == {"merged": "ab", "spurious": "2"}


def test_one_half_of_each_is_no_merge():
    assert fates_of(drawn("..1111.."), drawn("aaaabbbb")) == {"lost": "ab", "spurious": "1"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("...1111111.....", {"merged": "ab"}),  # 3 and 4 of 5 pixels; IoU 3 / 9 and 4 / 8
        ("..1111111111111", {"merged": "ab"}),
        (".11111111......", {"kept": "a", "merged": "b"}),  # IoU 5 / 8, and 3 of 5 pixels of b
        (".1111111.......", {"kept": "a", "lost": "b"}),  # 2 of 5
    ],
)
def test_a_merge_covers_more_than_half_of_each(found, expected):
    assert fates_of(drawn(found), drawn(".aaaaabbbbb....")) == expected


def test_pieces_mostly_outside_are_no_split():
    truth = drawn("...aaaaaa...")
    found = drawn("1111112222..")  # 1 has 3 of 6 inside
    assert fates_of(found, truth) == {"lost": "a", "spurious": "12"}


def reference(found, truth):
    """Definitions by loops over masks: counts and IoU sum of PQ, and the AJI under every order of ties.

    Written from algorithm 1 of Kumar et al. 2017 and equations 1 and 2 of Kirillov et al. 2019.
    """
    true_masks = [truth == label for label in set(truth[truth > 0].tolist())]
    found_masks = [found == label for label in set(found[found > 0].tolist())]
    matched, ious, choices = set(), [], []
    for true_mask in true_masks:
        best, candidates = Fraction(0), []
        for k, found_mask in enumerate(found_masks):
            shared, union = int((true_mask & found_mask).sum()), int((true_mask | found_mask).sum())
            iou = Fraction(shared, union)
            if iou > Fraction(1, 2):
                ious.append(iou)
                matched.add(k)
            if iou > best:
                best, candidates = iou, []
            if iou == best and iou > 0:
                candidates.append((shared, union, k))
        choices.append(candidates or [(0, int(true_mask.sum()), None)])
    found_sizes = [int(mask.sum()) for mask in found_masks]
    outcomes = set()
    for choice in itertools.product(*choices):
        taken = {k for _, _, k in choice}
        left_over = sum(size for k, size in enumerate(found_sizes) if k not in taken)
        outcomes.add((sum(shared for shared, _, _ in choice), sum(union for _, union, _ in choice) + left_over))
    counts = (len(ious), len(found_masks) - len(matched), len(true_masks) - len(ious))
    return counts, float(sum(ious)), outcomes


def rectangles(rng, shape):
    """Rectangles painted over each other, with holes; labels with gaps."""
    labels = np.zeros(shape, np.int32)
    for label in rng.choice(np.arange(1, 60), size=rng.integers(8), replace=False):
        row, column = rng.integers(shape[0]), rng.integers(shape[1])
        labels[row : row + rng.integers(1, 5), column : column + rng.integers(1, 5)] = label
    labels[rng.random(shape) < 0.1] = 0
    return labels


def strips(rng, shape):
    """Up to 7 strips of 4 pixels that end where others have their middle: ties wherever one looks."""
    strips = np.where(rng.random(7) < 0.8, rng.permutation(np.arange(1, 60))[:7], 0)
    row = np.concatenate([np.zeros(2 * rng.integers(2)), np.repeat(strips, 4), np.zeros(shape[0] * shape[1])])
    return row[: shape[0] * shape[1]].reshape(shape).astype(np.int32)


def random_pairs(n):
    for seed in range(n):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(3, 9, size=2))
        paint = strips if seed % 2 else rectangles
        truth, found = paint(rng, shape), paint(rng, shape)
        if seed % 3 == 0:  # the prediction resembles the truth
            found = np.where(rng.random(shape) < 0.2, found, truth)
        yield found, truth


def test_scores_agree_with_plain_loops():
    """400 random pairs. The AJI is one that algorithm 1 gives: of the largest numerators, the smallest denominator."""
    n_tied = 0
    for found, truth in random_pairs(400):
        result = scores(found, truth)
        counts, iou_sum, outcomes = reference(found, truth)
        assert (result.true_positive, result.false_positive, result.false_negative) == counts
        assert result.matched_iou == pytest.approx(iou_sum, rel=1e-12)
        numerator = max(shared for shared, _ in outcomes)
        union = min(union for shared, union in outcomes if shared == numerator)
        assert (result.aji_intersection, result.aji_union) == (numerator, union)
        n_tied += len(outcomes) > 1
    assert n_tied > 40  # the rule for ties was put to the test


def test_panoptic_quality_agrees_with_monai():
    from monai.metrics.panoptic_quality import compute_panoptic_quality

    def monai(found, truth, **options):
        tensors = {"pred": torch.from_numpy(found), "gt": torch.from_numpy(truth)}
        return compute_panoptic_quality(**tensors, **options).tolist()

    n_matched = 0
    for found, truth in random_pairs(60):
        if not (found.any() and truth.any()):
            continue  # MONAI has no convention for empty images
        result = scores(found, truth)
        counts = (result.true_positive, result.false_positive, result.false_negative, result.matched_iou)
        assert monai(found, truth, output_confusion_matrix=True) == pytest.approx(counts, rel=1e-5)
        if result.true_positive:
            for name, value in (("pq", result.pq), ("rq", result.dq), ("sq", result.sq)):
                assert monai(found, truth, metric_name=name) == pytest.approx(value, rel=1e-5)
            n_matched += 1
    assert n_matched > 20


def tile_of_nuclei(seed, side=1000, spacing=37):
    """Ellipses on a jittered grid, about 700 in a tile of 1000 x 1000."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    centres = np.stack(np.meshgrid(*[np.arange(spacing // 2, side, spacing)] * 2), axis=-1).reshape(-1, 2)
    for label, (row, column) in enumerate(centres + rng.integers(-9, 10, size=centres.shape), start=1):
        top, left = max(row - 18, 0), max(column - 18, 0)
        rows, columns = np.ogrid[top : min(row + 18, side), left : min(column + 18, side)]
        radii = rng.uniform(7, 16, size=2)
        inside = ((rows - row) / radii[0]) ** 2 + ((columns - column) / radii[1]) ** 2 <= 1
        labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = label
    return labels


def test_a_large_tile_takes_well_under_a_second():
    """It takes some 30 ms; the bound leaves room for a busy machine."""
    truth, found = tile_of_nuclei(0), tile_of_nuclei(1)
    assert np.unique(truth).size > 700
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        overlaps = instance_overlaps(found, truth)
        instance_scores(overlaps)
        fates(overlaps)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
