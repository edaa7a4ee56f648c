"""The polyp task: loss against a slow loop, prediction at any size, the record of drawn cases."""

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

from secateur.data.dataset import MEAN, STD
from secateur.data.sources import DataRecipe, load_cases
from secateur.errors import DataError, InputError
from secateur.tasks.polyp import PolypTask

TASK = PolypTask(size=32)
SIDE = 64


@dataclass(frozen=True)
class DrawnCase:
    id: str
    mask: np.ndarray
    shown: np.ndarray | None = None  # what the image shows, the mask by default

    def read(self):
        shown = self.mask if self.shown is None else self.shown
        return np.where(shown[..., None], 255, 0).repeat(3, axis=2).astype(np.uint8), self.mask


class Brightness(nn.Module):
    """Sees a polyp where the image is bright: the prediction is what a drawn case shows."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))
        self.dropout = nn.Dropout(0.9)  # would show if a network were measured in train mode

    def forward(self, image):
        grey = (image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]).mean(1, keepdim=True)
        return self.dropout(torch.ones_like(grey)) * self.sign * (grey - 0.5)


def boxes(*corners, shape=(SIDE, SIDE)):
    mask = np.zeros(shape, bool)
    for top, left, height, width in corners:
        mask[top : top + height, left : left + width] = True
    return mask


FIRST, SECOND, ASIDE = (4, 4, 16, 16), (36, 36, 20, 20), (8, 44, 8, 8)


def loss_by_loops(logits, target):
    losses = []
    for sample_logits, sample_target in zip(logits.flatten(1).tolist(), target.flatten(1).tolist(), strict=True):
        p = [1 / (1 + math.exp(-z)) for z in sample_logits]
        both = sum(a * t for a, t in zip(p, sample_target, strict=True))
        dice = 1 - (2 * both + 1) / (sum(p) + sum(sample_target) + 1)
        terms = [math.log(a if t else 1 - a) for a, t in zip(p, sample_target, strict=True)]
        losses.append(dice - sum(terms) / len(terms))
    return losses


def test_loss_equals_a_slow_loop():
    torch.manual_seed(0)
    logits, target = 2 * torch.randn(4, 1, 6, 5), (torch.rand(4, 1, 6, 5) > 0.6).float()
    target[1] = 0
    loss = TASK.loss(logits, target)
    assert loss.shape == (4,)
    np.testing.assert_allclose(loss.numpy(), loss_by_loops(logits, target), rtol=1e-5)


@pytest.mark.parametrize("level", [-100.0, 0.0, 100.0])
def test_loss_and_gradient_are_finite_on_empty_masks(level):
    logits = torch.full((2, 1, 8, 8), level, requires_grad=True)
    loss = TASK.loss(logits, torch.zeros(2, 1, 8, 8))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert (loss[0] < 1e-3) == (level == -100.0)


def test_loss_does_not_couple_samples():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 1, 8, 8, requires_grad=True), (torch.rand(3, 1, 8, 8) > 0.5).float()
    TASK.loss(logits, target)[1].backward()
    reached = logits.grad.flatten(1).abs().sum(dim=1)
    assert (reached > 0).tolist() == [False, True, False]


def test_loss_is_taken_in_float32_whatever_the_precision():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 1, 64, 64), (torch.rand(2, 1, 64, 64) > 0.9).float()
    loss = TASK.loss(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, TASK.loss(logits, target), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("shape", [(64, 64), (37, 91), (101, 30)])
def test_prediction_has_the_size_of_the_case(shape):
    mask = boxes((5, 6, 20, 15), shape=shape)
    image, _ = DrawnCase("odd", mask).read()
    found = TASK.predict(Brightness(), image)
    assert (found.shape, found.dtype) == (shape, np.bool_)
    wrong = found != mask
    assert wrong.mean() < 0.06
    assert not wrong[9:20, 10:17].any()


def test_prediction_puts_every_module_back_in_its_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)).train()
    model[1].eval()  # frozen on purpose
    before = {name: value.clone() for name, value in model.state_dict().items()}
    TASK.predict(model, np.zeros((20, 20, 3), np.uint8))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Conv2d(3, 2, 1), r"\(1, 2, 32, 32\)"),
        (nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten()), r"\(1, 1024\)"),
    ],
)
def test_a_network_without_one_output_channel_is_refused(model, found):
    with pytest.raises(InputError, match=rf"to {found}; the polyp task needs logits \(N, 1, H, W\)"):
        TASK.predict(model, np.zeros((20, 20, 3), np.uint8))


def test_validation_is_the_mean_dice_of_all_cases():
    half = DrawnCase("half", boxes((0, 0, 32, 32)), shown=boxes((0, 0, 32, 16)))  # Dice 2/3
    empty = DrawnCase("empty", boxes())  # 1
    invented = DrawnCase("invented", boxes(), shown=boxes(FIRST))  # 0
    frames = PolypTask(size=SIDE).training_set([half, empty, invented], augment=False)
    score = PolypTask(size=SIDE).validate(Brightness(), frames, batch_size=2)
    assert score == pytest.approx((2 / 3 + 1 + 0) / 3)


def evaluate(cases, **options):
    return PolypTask(size=SIDE).evaluate(Brightness(), cases, split="test", **options)


def test_record_of_the_dense_network():
    record = evaluate([DrawnCase("a", boxes(FIRST)), DrawnCase("b", boxes(FIRST, SECOND)), DrawnCase("c", boxes())])
    assert list(record) == [
        *("task", "split", "n_cases", "synthetic", "input_size"),
        *("metrics", "cases", "polyps", "false_polyp_frames"),
    ]
    assert (record["task"], record["split"], record["n_cases"]) == ("polyp", "test", 3)
    assert (record["synthetic"], record["input_size"]) == (False, SIDE)
    assert record["metrics"]["dice"] == {"mean": 1.0, "std": 0.0, "ci95": [1.0, 1.0], "n": 3, "undefined": 0}
    assert record["metrics"]["hd95_px"] == {
        "mean": 0.0,
        "std": 0.0,
        "ci95": [0.0, 0.0],
        "n": 2,
        "undefined": 1,
    }
    assert record["metrics"]["recall"]["undefined"] == 1
    assert record["polyps"] == {"total": 3, "seen_by_dense": None, "lost": None}
    assert record["false_polyp_frames"] == {"count": 0, "of": 3}
    assert record["cases"][2] == {
        **{"id": "c", "dice": 1.0, "iou": 1.0, "precision": None, "recall": None, "hd95_px": None},
        **{"polyps": 0, "false_polyp": False},
    }
    json.dumps(record, allow_nan=False)


def test_record_of_a_pruned_network_counts_what_the_cut_lost(tmp_path):
    truth = boxes(FIRST, SECOND)
    cases = [
        DrawnCase("kept", truth),
        DrawnCase("lost one", truth, shown=boxes(SECOND)),
        DrawnCase("never seen", truth, shown=boxes(SECOND)),
        DrawnCase("invented one", truth, shown=truth | boxes(ASIDE)),
    ]
    found = {case.id: truth for case in cases} | {"never seen": boxes(SECOND)}
    evaluate([DrawnCase(name, truth, shown=shown) for name, shown in found.items()], predictions=tmp_path)
    record = evaluate(cases, dense_predictions=tmp_path)
    assert [case["polyps_lost"] for case in record["cases"]] == [0, 1, 0, 0]
    assert [case["false_polyp"] for case in record["cases"]] == [False, False, False, True]
    assert record["polyps"] == {"total": 8, "seen_by_dense": 7, "lost": 1}
    assert record["false_polyp_frames"] == {"count": 1, "of": 4}
    case = record["cases"][1]
    both, true = 400, 656
    assert case["dice"] == pytest.approx(2 * both / (both + true))
    assert (case["precision"], case["recall"]) == (1.0, pytest.approx(both / true))


def test_synthetic_cases_are_labelled_in_the_record():
    cases = load_cases(DataRecipe(size=64, train=1, val=1, test=2))["test"]
    assert evaluate(cases)["synthetic"] is True


def test_saved_predictions_read_back_and_stand_beside_image_and_truth(tmp_path):
    cases = [DrawnCase("a", boxes(FIRST), shown=boxes(SECOND)), DrawnCase("b", boxes(shape=(33, 50)))]
    evaluate(cases, predictions=tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), boxes(SECOND) * np.uint8(255))
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (50, 33)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a_truth.png")), boxes(FIRST) * np.uint8(255))
    with Image.open(tmp_path / "b_image.jpg") as image:
        assert image.size == (50, 33)
    assert evaluate(cases, dense_predictions=tmp_path)["polyps"] == {"total": 1, "seen_by_dense": 0, "lost": 0}


def test_absent_or_foreign_dense_predictions_are_refused(tmp_path):
    case = DrawnCase("a", boxes(FIRST))
    with pytest.raises(DataError, match=r"a\.png cannot be read .* evaluate the dense run again"):
        evaluate([case], dense_predictions=tmp_path)
    evaluate([DrawnCase("a", boxes(shape=(33, 50)))], predictions=tmp_path)
    with pytest.raises(DataError, match="case a is 50x33 pixels, the case 64x64"):
        evaluate([case], dense_predictions=tmp_path)


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(DataError, match="split 'test' has no case"):
        evaluate([])


@pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="SECATEUR_DATA does not point at the real data")
def test_real_frames_of_odd_sizes_are_measured_at_their_own_size(tmp_path):
    root = Path(os.environ["SECATEUR_DATA"]) / "polyp_polypgen"
    if not root.is_dir():
        pytest.skip("SECATEUR_DATA has no polyp_polypgen")
    cases = load_cases(DataRecipe(source=str(root)))["test"][:5]
    record = evaluate(cases, predictions=tmp_path)
    assert record["synthetic"] is False
    assert record["polyps"]["total"] >= 5
    for case in cases:
        with Image.open(tmp_path / f"{case.id}.png") as mask:
            assert mask.size == case.read()[1].shape[::-1]
