"""The cases shown are the worst ones, and their pictures show the masks on disk."""

import io
from base64 import b64decode
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from report_fixtures import evaluation_record
from secateur.report.runs.cases import case_pairs, choose_cases
from secateur.report.tasks.pictures import pictures_exist
from secateur.report.tasks.polyp_pictures import cut_picture, frame_picture
from secateur.report.tasks.views import VIEWS


def opacity(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(b64decode(address.split(",", 1)[1]))) as picture:
        return np.asarray(picture.convert("RGBA"))[..., 3]


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("dense", "pruned"):
        (tmp_path / name).mkdir()
        Image.fromarray((rng.random((40, 60)) > 0.5).astype(np.uint8) * 255).save(tmp_path / name / "a.png")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "dense/a_image.jpg")
    Image.fromarray(np.pad(np.full((20, 40), 255, np.uint8), 10)).save(tmp_path / "dense/a_truth.png")
    return {name: tmp_path / name for name in ("dense", "pruned")}


def read_mask(path):
    with Image.open(path) as picture:
        return np.asarray(picture) > 127


def test_lost_polyps_come_first_then_the_largest_drop():
    dense = evaluation_record([0.9, 0.9, 0.9, None])
    pruned = evaluation_record([0.8, 0.85, 0.2, 0.1], lost=[0, 1, 0, 0])
    assert [pair.id for pair in case_pairs(dense, pruned, VIEWS["polyp"])] == ["case-001", "case-002", "case-000"]


@pytest.mark.parametrize("cases", [18, 19, 21, 100])
def test_worst_middle_and_best_do_not_repeat(cases):
    after = np.random.default_rng(2).random(cases).tolist()
    pairs = case_pairs(evaluation_record([0.9] * cases), evaluation_record(after), VIEWS["polyp"])
    chosen = choose_cases(pairs)
    shown = [pair.pruned for pair in chain(*chosen.values())]
    assert shown == sorted(set(shown))
    assert len(shown) == 18
    assert shown[:12] == sorted(after)[:12]
    assert shown[-3:] == sorted(after)[-3:]


def test_difference_shows_what_only_one_network_marks(folders):
    before, after = (read_mask(folders[name] / "a.png") for name in ("dense", "pruned"))
    picture = cut_picture("a", **folders)
    np.testing.assert_array_equal(opacity(picture.only_dense) > 0, before & ~after)
    np.testing.assert_array_equal(opacity(picture.only_pruned) > 0, after & ~before)
    np.testing.assert_array_equal(opacity(picture.pruned) > 0, after)


def test_truth_is_an_outline(folders):
    frame = frame_picture("a", number=0, dense=folders["dense"])
    expected = np.zeros((40, 60), bool)
    expected[10:30, 10:50] = True
    expected[11:29, 11:49] = False
    assert (frame.width, frame.height) == (60, 40)
    np.testing.assert_array_equal(opacity(frame.truth) == 255, expected)
    assert set(np.unique(opacity(frame.truth))) == {0, 255}


def test_pictures_are_small(tmp_path):
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 255, (700, 1400, 3), dtype=np.uint8)).save(tmp_path / "a_image.jpg")
    for name in ("a", "a_truth"):
        Image.fromarray(np.full((700, 1400), 255, np.uint8)).save(tmp_path / f"{name}.png")
    frame = frame_picture("a", number=0, dense=tmp_path)
    assert (frame.width, frame.height) == (256, 128)
    assert opacity(frame.dense).shape == (128, 256)


@pytest.mark.parametrize("name", ["dense/a.png", "dense/a_image.jpg", "dense/a_truth.png", "pruned/a.png"])
def test_pictures_exist_only_together(folders, name):
    assert pictures_exist("a", **folders)
    (folders["dense"].parent / name).unlink()
    assert not pictures_exist("a", **folders)
