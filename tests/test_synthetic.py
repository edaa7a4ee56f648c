"""The synthetic colonoscopy: seeded, varied, and not solved by a threshold."""

import numpy as np
import pytest
from pydantic import ValidationError

from secateur.data.sources import DataRecipe, load_cases

RECIPE = DataRecipe(size=64, train=120, val=3, test=4, seed=5)


@pytest.fixture(scope="module")
def frames():
    return [case.read() for case in load_cases(RECIPE)["train"]]


def test_reading_twice_gives_the_same_frame():
    case = load_cases(RECIPE)["train"][7]
    first, second = case.read(), case.read()
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_seed_split_and_index_each_change_the_frame():
    cases, other = load_cases(RECIPE), load_cases(RECIPE.model_copy(update={"seed": 6}))
    images = [case.read()[0] for case in (cases["train"][0], cases["train"][1], cases["val"][0], other["train"][0])]
    assert all(np.mean(images[i] != images[j]) > 0.5 for i in range(4) for j in range(i))


def test_a_split_does_not_depend_on_the_size_of_the_others():
    more = RECIPE.model_copy(update={"train": 200, "val": 5})
    np.testing.assert_array_equal(load_cases(RECIPE)["test"][3].read()[0], load_cases(more)["test"][3].read()[0])


def test_splits_have_the_counts_asked_for_and_unique_names():
    cases = load_cases(RECIPE)
    assert {split: len(of) for split, of in cases.items()} == {"train": 120, "val": 3, "test": 4}
    names = [case.id for of in cases.values() for case in of]
    assert len(set(names)) == 127
    assert all(name.startswith("synthetic-") for name in names)


def test_frames_are_rgb_with_masks_at_the_size_asked_for(frames):
    image, mask = frames[0]
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((64, 64), np.bool_)


def test_frames_vary_as_real_ones_do(frames):
    areas = np.array([mask.mean() for _, mask in frames])
    assert 0.04 < np.mean(areas == 0) < 0.25  # one in eight without a polyp
    assert 0.05 < areas[areas > 0].mean() < 0.2  # Kvasir-SEG: 0.14, PolypGen: 0.09
    assert areas.max() > 0.2
    tones = np.array([image.reshape(-1, 3).mean(axis=0) for image, _ in frames])
    assert (tones.std(axis=0) > 12).all()
    assert (tones[:, 0] > tones[:, 2]).all()  # mucosa is reddish, always
    borders = [not image[0, 0].any() for image, _ in frames]
    assert 0.3 < np.mean(borders) < 0.7


def test_polyps_stay_out_of_the_black_border(frames):
    assert all(image[mask].max(axis=1).min() > 0 for image, mask in frames if mask.any())


@pytest.mark.parametrize(
    "feature",
    [
        lambda image: image[..., 0] / (image.sum(axis=-1) + 1),
        lambda image: image[..., 0] - image[..., 1],
        lambda image: image.mean(axis=-1),
    ],
    ids=["red share", "red minus green", "brightness"],
)
def test_no_threshold_solves_the_task(frames, feature):
    """Even the best threshold, chosen with the truth in hand, stays far below what a network learns."""
    with_polyp = [(feature(image.astype(float)), mask) for image, mask in frames if mask.any()]
    levels = np.quantile(np.concatenate([values.ravel() for values, _ in with_polyp]), np.linspace(0.02, 0.98, 25))

    def mean_dice(found_of):
        dices = [
            2 * np.count_nonzero(found_of(values) & mask) / (np.count_nonzero(found_of(values)) + mask.sum())
            for values, mask in with_polyp
        ]
        return np.mean(dices)

    best = max(
        max(mean_dice(lambda values: values > level), mean_dice(lambda values: values < level))  # noqa: B023
        for level in levels
    )
    assert best < 0.3


def test_polyps_are_visible(frames):
    """Edges run along the outline: the gradient there is well above the frame's."""
    ratios = []
    for image, mask in frames:
        if mask.any():
            grey = image.astype(float).mean(axis=-1)
            slope = np.hypot(*np.gradient(grey))
            outline = np.hypot(*np.gradient(mask.astype(float))) > 0
            inside = image.max(axis=-1) > 0
            ratios.append(slope[outline & inside].mean() / slope[inside].mean())
    assert np.median(ratios) > 1.3


@pytest.mark.parametrize("field", [{"size": 8}, {"train": 0}, {"seed": -1}, {"source": ""}, {"siez": 64}])
def test_recipe_refuses_what_cannot_be_drawn(field):
    with pytest.raises(ValidationError, match=next(iter(field))):
        DataRecipe(**field)
