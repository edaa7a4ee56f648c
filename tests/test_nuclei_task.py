"""The nuclei task: loss against a slow loop, tiling that leaves no seam, the record of drawn cases."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from secateur.data.distance import distance_targets
from secateur.data.instances import Marking
from secateur.data.sources import DataRecipe
from secateur.errors import CheckError, DataError, InputError
from secateur.nets.nuclei import two_networks
from secateur.tasks.nuclei import NucleiTask
from secateur.tasks.outlines import outline
from secateur.tasks.watershed import Merge
from secateur.train.objective import distillation_loss

TASK = NucleiTask(32, merge=Merge(smallest=5))


@dataclass(frozen=True)
class DrawnTile:
    """Red says where a nucleus is, green how deep: what `Painted` reads."""

    id: str
    truth: np.ndarray
    shown: np.ndarray | None = None  # what the image shows, the truth by default

    def read(self):
        shown = self.truth if self.shown is None else self.shown
        image = np.zeros((*shown.shape, 3), np.uint8)
        image[..., 0] = np.where(shown > 0, 255, 0)
        image[..., 1] = np.round(255 * distance_targets(shown))
        return image, self.truth


class Painted(nn.Module):
    """Reads mask and distance off the image, so that the prediction is what a drawn tile shows."""

    def __init__(self, depth=1.0):
        super().__init__()
        self.depth = nn.Parameter(torch.tensor(depth))
        self.dropout = nn.Dropout(0.9)  # would show if a network were measured in train mode

    def forward(self, image):
        seen = torch.stack((8 * image[:, 0] - 4, self.depth * image[:, 1]), dim=1)
        return seen * self.dropout(torch.ones_like(seen))


def discs(*places, shape=(70, 100)):
    rows, columns = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number, (row, column, radius) in enumerate(places, start=1):
        labels[((rows - row) ** 2 + (columns - column) ** 2 < radius**2) & (labels == 0)] = number
    return labels


FIRST, SECOND, THIRD = (15, 20, 9), (15, 37, 9), (50, 70, 12)  # the first two touch
TRUTH = discs(FIRST, SECOND, THIRD)


def loss_by_loops(output, target):
    losses = []
    for (logits, depths), (mask, distances) in zip(output.flatten(2).tolist(), target.flatten(2).tolist(), strict=True):
        p = [1 / (1 + math.exp(-z)) for z in logits]
        both = sum(a * t for a, t in zip(p, mask, strict=True))
        dice = 1 - (2 * both + 1) / (sum(p) + sum(mask) + 1)
        entropy = -sum(math.log(a if t else 1 - a) for a, t in zip(p, mask, strict=True)) / len(p)
        error = sum((d - t) ** 2 for d, t in zip(depths, distances, strict=True)) / len(p)
        losses.append(dice + entropy + 20 * error)
    return losses


def random_batch(n=4):
    torch.manual_seed(0)
    mask = (torch.rand(n, 1, 6, 5) > 0.6).float()
    return torch.randn(n, 2, 6, 5), torch.cat((mask, mask * torch.rand(n, 1, 6, 5)), dim=1)


def test_loss_equals_a_slow_loop():
    output, target = random_batch()
    target[1] = 0
    loss = TASK.loss(output, target)
    assert loss.shape == (4,)
    np.testing.assert_allclose(loss.numpy(), loss_by_loops(output, target), rtol=1e-5)


def test_loss_does_not_couple_samples():
    output, target = random_batch(3)
    output.requires_grad_()
    TASK.loss(output, target)[1].backward()
    assert (output.grad.flatten(1).abs().sum(dim=1) > 0).tolist() == [False, True, False]


def test_a_teacher_is_agreed_with_in_mask_and_distance():
    """The mask's logits as a sigmoid, the distances as numbers; never both as two classes."""
    teacher, student = random_batch(3)[0], random_batch(3)[0].clone()
    assert TASK.agreement(student, teacher, temperature=2.0).abs().max() < 1e-6
    student[0, 0] += 3
    student[1, 1] += 0.5
    student[2] += 0.5  # a softmax would not see it
    found = TASK.agreement(student, teacher, temperature=2.0)
    alone = distillation_loss(student[:, :1], teacher[:, :1], temperature=2.0)
    assert found[0] == pytest.approx(alone[0].item(), rel=1e-5)
    assert found[1].item() == pytest.approx(20 * 0.25, rel=1e-5)
    assert found[2].item() == pytest.approx(alone[2].item() + 20 * 0.25, rel=1e-5)


def test_the_mask_alone_decides_what_a_pixel_is():
    output = np.zeros((1, 2, 1, 4), np.float32)
    output[0, :, 0] = [[-1, 1, 1, -1], [5, 5, -5, -5]]
    assert TASK.labels(output).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("level", [-100.0, 0.0, 100.0])
def test_loss_and_gradient_are_finite_on_empty_windows(level):
    output = torch.full((2, 2, 8, 8), level, requires_grad=True)
    loss = TASK.loss(output, torch.zeros(2, 2, 8, 8))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(output.grad).all()


def test_loss_is_taken_in_float32_whatever_the_precision():
    output, target = random_batch()
    rounded = output.bfloat16()
    loss = TASK.loss(rounded, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, TASK.loss(rounded.float(), target))


def test_a_blank_answer_costs_both_branches_alike():
    """What the weight of the distances is for, on tiles as full of nuclei as synthetic ones are."""
    samples = TASK.training_set(TASK.load_cases(DataRecipe(size=64, train=6, val=1, test=1))["train"], augment=False)
    target = torch.stack([samples[index][1] for index in range(len(samples))])
    blank = torch.zeros_like(target)
    blank[:, 0] = -20
    told = target.clone()
    told[:, 0] = 40 * target[:, 0] - 20
    nothing, mask_only = (
        TASK.loss(blank, target).mean(),
        TASK.loss(told * torch.tensor([1, 0])[:, None, None], target).mean(),
    )
    dice = 1.0
    assert 0.3 * dice < mask_only < 3 * dice
    assert nothing > mask_only + dice * 0.5


@pytest.mark.parametrize("shape", [(32, 32), (70, 100), (37, 91), (20, 14)])
def test_nuclei_are_found_at_the_tiles_own_size(shape):
    truth = discs((10, 7, 6), shape=shape) if shape == (20, 14) else discs((15, 12, 9), (14, 24, 5), shape=shape)
    found = TASK.predict(Painted(), DrawnTile("a", truth).read()[0])
    assert (found.shape, found.dtype) == (shape, np.int32)
    np.testing.assert_array_equal(found > 0, truth > 0)
    assert found.max() == truth.max()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_network_that_diverged_is_told(number):
    with pytest.raises(CheckError, match="not finite"):
        TASK.evaluate(Painted(depth=number), [DrawnTile("a", discs((20, 20, 8)))], split="test")


def test_windows_leave_no_seam():
    """A pointwise network gives the same on windows as on the whole, whatever the overlap."""
    image, _ = DrawnTile("a", TRUTH).read()
    whole = Painted().eval()(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0].detach()
    for overlap in (0.0, 0.25, 0.6):
        probability, distance = NucleiTask(32, overlap=overlap).branches(Painted(), image)
        np.testing.assert_allclose(probability, whole[0].sigmoid(), atol=1e-5)
        np.testing.assert_allclose(distance, whole[1], atol=1e-5)


def test_windows_are_blended():
    """Where windows disagree the answer passes from one to the other without a step."""

    class Place(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, windows):
            ramp = torch.linspace(0, 1, windows.shape[-1]).expand(len(windows), 2, *windows.shape[2:])
            return ramp.clone()

    image = np.zeros((32, 192, 3), np.uint8)
    _, hard = NucleiTask(32, overlap=0.0).branches(Place(), image)
    _, soft = NucleiTask(32, overlap=0.5).branches(Place(), image)
    assert np.abs(np.diff(hard[0])).max() > 0.9
    assert np.abs(np.diff(soft[0])).max() < 0.2


def test_prediction_puts_every_module_back_in_its_mode():
    model = Painted().train()
    TASK.predict(model, np.zeros((40, 40, 3), np.uint8))
    assert model.training
    assert model.dropout.training


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Conv2d(3, 1, 1), r"\(\d, 1, 32, 32\)"),
        (nn.Conv2d(3, 2, 3), r"\(\d, 2, 30, 30\)"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), r"\(\d, 2048\)"),
    ],
)
def test_a_network_without_the_two_channels_is_refused(model, found):
    with pytest.raises(InputError, match=rf"to {found}; the nuclei task needs \(N, 2, H, W\)"):
        TASK.predict(model, np.zeros((40, 40, 3), np.uint8))
    samples = TASK.training_set([DrawnTile("a", TRUTH)], augment=False)
    with pytest.raises(InputError, match="the nuclei task needs"):
        TASK.validate(model, samples, batch_size=3)


def test_validation_is_the_mean_of_dice_and_correlation():
    truth = discs((16, 16, 10), shape=(32, 32))
    half = np.where(np.arange(32) < 16, truth, 0)
    cases = [DrawnTile("half", truth, shown=half), DrawnTile("empty", truth * 0)]
    samples = TASK.training_set(cases, augment=False)
    dice = (2 * half.sum() / (half.sum() + truth.sum()) + 1) / 2
    shown = np.round(255 * distance_targets(half)) / 255
    correlation = np.corrcoef(shown[truth > 0], distance_targets(truth)[truth > 0])[0, 1]
    assert TASK.validate(Painted(), samples, batch_size=1) == pytest.approx((dice + correlation) / 2, abs=1e-6)
    assert TASK.validate(Painted(depth=0.3), samples) == pytest.approx((dice + correlation) / 2, abs=1e-6)
    assert TASK.validate(Painted(depth=-1.0), samples) == pytest.approx((dice - correlation) / 2, abs=1e-6)
    assert TASK.validate(Painted(depth=0.0), samples) == pytest.approx(dice / 2)
    perfect = TASK.training_set([DrawnTile("a", truth)], augment=False)
    assert TASK.validate(Painted(), perfect) == pytest.approx(1, abs=1e-4)


def evaluate(cases, model=None, **options):
    return TASK.evaluate(model or Painted(), cases, split="test", **options)


def test_record_of_the_dense_network():
    record = evaluate([DrawnTile("a", TRUTH), DrawnTile("b", discs(THIRD)), DrawnTile("c", TRUTH * 0)])
    assert list(record) == [
        *("task", "split", "n_cases", "synthetic", "input_size", "merge"),
        *("metrics", "cases", "nuclei", "seconds"),
    ]
    assert (record["task"], record["split"], record["n_cases"]) == ("nuclei", "test", 3)
    assert (record["synthetic"], record["input_size"]) == (False, 32)
    assert record["merge"] == TASK.merge.model_dump()
    assert list(record["metrics"]) == [
        *("semantic_dice", "semantic_iou", "distance_mse", "distance_correlation"),
        *("aji", "pq", "dq", "sq", "f1", "instance_dice"),
    ]
    assert record["metrics"]["semantic_dice"]["mean"] == 1
    assert record["metrics"]["instance_dice"]["mean"] == 1
    assert record["metrics"]["aji"]["mean"] > 0.98
    assert record["metrics"]["distance_mse"] == {
        **{"mean": pytest.approx(0, abs=1e-5), "std": pytest.approx(0, abs=1e-5)},
        **{"ci95": pytest.approx([0, 0], abs=1e-5), "n": 2, "undefined": 1},
    }
    assert record["metrics"]["sq"]["undefined"] == 1
    assert record["cases"][2] == {
        **{"id": "c", "semantic_dice": 1, "semantic_iou": 1, "distance_mse": None, "distance_correlation": None},
        **{"aji": 1, "pq": 1, "dq": 1, "sq": None, "f1": 1, "instance_dice": 1},
        "nuclei": {"total": 0, "kept": 0, "merged": 0, "split": 0, "lost": 0, "found": 0, "spurious": 0},
    }
    assert record["nuclei"] == {"total": 4, "kept": 4, "merged": 0, "split": 0, "lost": 0, "found": 4, "spurious": 0}
    assert list(record["seconds"]) == ["read", "network", "merge", "metrics"]
    assert all(0 < seconds < 10 for seconds in record["seconds"].values())
    json.dumps(record, allow_nan=False)


def test_branches_are_measured_apart():
    """Half the mask gone, and distances too flat: each shows in its own numbers."""
    shown = np.where(np.arange(100) < 60, TRUTH, 0)
    case = evaluate([DrawnTile("a", TRUTH, shown=shown)], Painted(depth=0.5))["cases"][0]
    both, true = (shown > 0).sum(), (TRUTH > 0).sum()
    assert case["semantic_dice"] == pytest.approx(2 * both / (both + true))
    assert case["semantic_iou"] == pytest.approx(both / true)
    inside, target = TRUTH > 0, distance_targets(TRUTH)
    seen = 0.5 * np.round(255 * distance_targets(shown)) / 255
    assert case["distance_mse"] == pytest.approx(((seen - target)[inside] ** 2).mean(), rel=1e-4)
    assert case["distance_correlation"] == pytest.approx(np.corrcoef(seen[inside], target[inside])[0, 1], rel=1e-4)
    assert case["nuclei"] == {"total": 3, "kept": 2, "merged": 0, "split": 0, "lost": 1, "found": 3, "spurious": 1}


def test_the_semantic_mask_is_measured_before_it_is_cleaned():
    shown = np.where(TRUTH > 0, TRUTH, 0)
    shown[60, 5] = 9  # a speck that the watershed's cleaning drops
    case = evaluate([DrawnTile("a", TRUTH, shown=shown)])["cases"][0]
    assert case["instance_dice"] == 1
    assert case["semantic_dice"] < 1


def test_record_of_a_pruned_network_counts_what_the_cut_cost(tmp_path):
    joined = np.where(TRUTH == 2, 1, TRUTH)
    cases = [DrawnTile("same", TRUTH), DrawnTile("lost", TRUTH), DrawnTile("never", TRUTH, shown=discs(FIRST, SECOND))]
    evaluate(cases, predictions=tmp_path)
    now = [
        DrawnTile("same", TRUTH),
        DrawnTile("lost", TRUTH, shown=discs(FIRST, SECOND)),
        DrawnTile("never", TRUTH, shown=joined * (joined < 3)),
    ]
    record = evaluate(now, dense_predictions=tmp_path)
    by_case = [
        [case["nuclei"][key] for key in ("kept_by_dense", "lost_by_cut", "merged_by_cut", "split_by_cut")]
        for case in record["cases"]
    ]
    assert by_case[:2] == [[3, 0, 0, 0], [3, 1, 0, 0]]
    assert by_case[2][:2] == [2, 0]  # what the dense network had lost is not the cut's
    assert record["nuclei"]["kept_by_dense"] == 8
    assert record["nuclei"]["lost_by_cut"] == 1


def test_a_cut_that_merges_is_counted_as_that(tmp_path):
    class OneHill(Painted):
        def forward(self, image):
            return super().forward(image) * torch.tensor([1, 0])[:, None, None]

    case = DrawnTile("a", TRUTH)
    evaluate([case], predictions=tmp_path)
    nuclei = evaluate([case], OneHill(), dense_predictions=tmp_path)["nuclei"]
    assert (nuclei["merged"], nuclei["merged_by_cut"], nuclei["lost_by_cut"]) == (2, 2, 0)


def test_synthetic_tiles_are_labelled_in_the_record_and_two_windows_wide():
    cases = TASK.load_cases(DataRecipe(size=32, train=1, val=1, test=2))["test"]
    assert cases[0].read()[1].shape == (64, 64)
    assert evaluate(cases)["synthetic"] is True


def test_saved_nuclei_read_back_and_stand_beside_image_and_truth(tmp_path):
    evaluate([DrawnTile("a", TRUTH, shown=discs(THIRD))], predictions=tmp_path)
    saved = np.asarray(Image.open(tmp_path / "a.png"))
    assert saved.dtype == np.uint16
    np.testing.assert_array_equal(saved > 0, discs(THIRD) > 0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a_truth.png")), TRUTH)
    with Image.open(tmp_path / "a_image.jpg") as image:
        assert image.size == (100, 70)


def test_absent_or_foreign_dense_predictions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.png cannot be read .* evaluate the dense run again"):
        evaluate([DrawnTile("a", TRUTH)], dense_predictions=tmp_path)
    evaluate([DrawnTile("a", TRUTH[:50])], predictions=tmp_path)
    with pytest.raises(DataError, match="case a is 100x50 pixels, the case 100x70"):
        evaluate([DrawnTile("a", TRUTH)], dense_predictions=tmp_path)


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(DataError, match="split 'test' has no case"):
        evaluate([])


def test_the_constants_are_chosen_on_the_dense_network():
    rng = np.random.default_rng(0)
    truth = discs(*[(rng.uniform(5, 65), rng.uniform(5, 95), rng.uniform(5, 9)) for _ in range(12)])
    task = TASK.tuned(Painted(), [DrawnTile("a", truth)])
    assert task.size == TASK.size
    assert TASK.with_constants(task.constants) == task
    before, after = (each.evaluate(Painted(), [DrawnTile("a", truth)], split="val") for each in (TASK, task))
    assert after["metrics"]["aji"]["mean"] >= before["metrics"]["aji"]["mean"]
    with pytest.raises(DataError, match="no case was given"):
        TASK.tuned(Painted(), [])


def test_input_and_picture_are_the_window_in_the_middle():
    image, _ = DrawnTile("a", TRUTH).read()
    window = TASK.to_input(image, 48)
    np.testing.assert_allclose(window[0].permute(1, 2, 0) * 255, image[11:59, 26:74], atol=1e-4)
    with torch.no_grad():
        drawn = TASK.draw(image, Painted().eval()(window))
    nuclei = TASK.predict(Painted(), image[11:59, 26:74])
    np.testing.assert_array_equal(drawn, outline(image[11:59, 26:74], nuclei))
    assert TASK.to_input(image, 128).shape == (1, 3, 128, 128)


def test_a_folder_of_binary_masks_needs_the_word_for_it(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(3):
        Image.fromarray(DrawnTile("a", TRUTH).read()[0]).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray((TRUTH > 0).astype(np.uint8) * 255).save(tmp_path / "masks" / f"{index}.png")
    recipe = DataRecipe(source=str(tmp_path))
    with pytest.raises(DataError, match="is a binary mask"):
        TASK.load_cases(recipe)["test"][0].read()
    found = NucleiTask(32, marking=Marking.BINARY).load_cases(recipe)["test"][0].read()[1]
    assert found.max() == 2


@pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="SECATEUR_DATA does not point at the real data")
@pytest.mark.parametrize("name", ["nuclei_dsb2018_histology", "nuclei_dsb2018_fluorescence"])
def test_real_tiles_are_measured(name, tmp_path):
    root = Path(os.environ["SECATEUR_DATA"]) / name
    if not root.is_dir():
        pytest.skip(f"SECATEUR_DATA has no {name}")
    task = NucleiTask(128)
    cases = task.load_cases(DataRecipe(source=str(root)))["test"][:2]
    record = task.evaluate(two_networks((2, 4)).build(), cases, split="test", predictions=tmp_path)
    assert record["nuclei"]["total"] == sum(int(case.read()[1].max()) for case in cases)
    assert record["synthetic"] is False
