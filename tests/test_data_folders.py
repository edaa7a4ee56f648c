"""Folders of frames: what is read, how it is split, and what is refused with which words."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateur.data.folders import load_folder
from secateur.data.sources import DataRecipe, load_cases
from secateur.errors import DataError

SIZE = (24, 20)  # width, height


def disc(fill=255, size=SIZE):
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return np.where(np.hypot(columns - 11, rows - 9) < 6, fill, 0).astype(np.uint8)


def frame(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def make_folder(root, n=10, *, images="images", masks="masks", image_suffix=".png", mask_suffix=".png"):
    (root / images).mkdir(parents=True)
    (root / masks).mkdir()
    for i in range(n):
        Image.fromarray(frame(i)).save(root / images / f"case{i}{image_suffix}")
        Image.fromarray(disc()).save(root / masks / f"case{i}{mask_suffix}")
    return root


def save_mask(root, pixels, name="case0.png", **options):
    (root / "masks" / "case0.png").unlink()
    Image.fromarray(pixels).save(root / "masks" / name, **options)


def read_first(root):
    cases = {case.id: case for cases in load_folder(root, seed=0).values() for case in cases}
    return cases["case0"].read()


@pytest.mark.parametrize(
    ("images", "masks", "suffix"), [("images", "masks", ".png"), ("Original", "Ground Truth", ".tif")]
)
def test_known_layouts_give_the_pixels_on_disk(tmp_path, images, masks, suffix):
    make_folder(tmp_path, images=images, masks=masks, image_suffix=suffix, mask_suffix=suffix)
    image, mask = read_first(tmp_path)
    np.testing.assert_array_equal(image, frame(0))
    np.testing.assert_array_equal(mask, disc() > 0)
    assert (image.dtype, mask.dtype) == (np.uint8, np.bool_)


def test_image_and_mask_may_have_different_endings(tmp_path):
    make_folder(tmp_path, image_suffix=".jpg")
    (tmp_path / "images" / "README.txt").write_text("not an image")
    (tmp_path / "images" / "._case0.jpg").write_bytes(b"left by a file manager")
    assert sum(map(len, load_folder(tmp_path, seed=0).values())) == 10


def test_without_splits_the_folder_is_cut_80_10_10_by_the_seed(tmp_path):
    make_folder(tmp_path, 20)
    ids = {split: [case.id for case in cases] for split, cases in load_folder(tmp_path, seed=1).items()}
    assert {split: len(names) for split, names in ids.items()} == {"train": 16, "val": 2, "test": 2}
    assert len(set().union(*ids.values())) == 20
    again = {split: [case.id for case in cases] for split, cases in load_folder(tmp_path, seed=1).items()}
    other = {split: [case.id for case in cases] for split, cases in load_folder(tmp_path, seed=2).items()}
    assert ids == again
    assert ids != other


def test_splits_on_disk_are_kept_in_their_order(tmp_path):
    make_folder(tmp_path, 5)
    splits = {"train": ["case3", "case0"], "val": ["case1"], "test": ["case2"], "by_centre": {"A": []}}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    found = load_folder(tmp_path, seed=0)
    assert {split: [case.id for case in cases] for split, cases in found.items()} == {
        split: splits[split] for split in ("train", "val", "test")
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"splits.json is not readable JSON"),
        ("[]", r"no list of case names under 'train'; it needs train, val, test"),
        ('{"train": ["case0"], "val": "case1", "test": ["case2"]}', r"no list of case names under 'val'"),
        ('{"train": ["case0"], "val": [], "test": ["case2"]}', r"split 'val' in .* is empty"),
        ('{"train": ["case0"], "val": ["x9"], "test": ["case2"]}', r"1 cases that are not on disk: x9"),
        ('{"train": ["case0"], "val": ["case1"], "test": ["case0"]}', r"more than once: case0"),
    ],
)
def test_unusable_splits_are_refused(tmp_path, content, message):
    make_folder(tmp_path, 3)
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_folder(tmp_path, seed=0)


def test_too_few_cases_to_split_are_refused(tmp_path):
    make_folder(tmp_path, 2)
    with pytest.raises(DataError, match="holds 2 cases, which leaves a split empty; at least 3"):
        load_folder(tmp_path, seed=0)


def test_missing_folder_and_unknown_layout_are_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_cases(DataRecipe(source=str(tmp_path / "nowhere")))
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"holds pictures;.*`images/` \+ `masks/` or `Original/` \+ `Ground Truth/`"):
        load_folder(tmp_path, seed=0)


def test_files_that_do_not_pair_are_named(tmp_path):
    make_folder(tmp_path, 6)
    for i in range(5):
        (tmp_path / "masks" / f"case{i}.png").unlink()
    with pytest.raises(DataError, match=r"5 image without mask .* case0, case1, case2, case3 and 1 more"):
        load_folder(tmp_path, seed=0)


def test_mask_without_image_is_named(tmp_path):
    make_folder(tmp_path, 3)
    (tmp_path / "images" / "case1.png").unlink()
    with pytest.raises(DataError, match=r"1 mask without image .* case1"):
        load_folder(tmp_path, seed=0)


def test_two_files_of_one_name_are_refused(tmp_path):
    make_folder(tmp_path, 3)
    Image.fromarray(frame()).save(tmp_path / "images" / "case1.jpg")
    with pytest.raises(DataError, match=r"case1.jpg and case1.png .* one case name"):
        load_folder(tmp_path, seed=0)


def test_empty_image_folder_is_refused(tmp_path):
    make_folder(tmp_path, 0)
    with pytest.raises(DataError, match="holds no image; files ending in"):
        load_folder(tmp_path, seed=0)


def test_sizes_that_differ_are_refused_before_reading(tmp_path):
    make_folder(tmp_path, 3)
    save_mask(tmp_path, disc(size=(30, 20)))
    with pytest.raises(DataError, match="case0: the image is 24x20 and the mask 30x20"):
        load_folder(tmp_path, seed=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_wrong_channel_count_of_an_image_is_said(tmp_path, mode):
    make_folder(tmp_path, 3)
    path = tmp_path / "images" / "case0.png"
    path.unlink()
    Image.fromarray(frame()).convert(mode).save(path.with_suffix(".tif"))
    with pytest.raises(DataError, match=f"pixel format '{mode}'; images are 8-bit RGB"):
        load_folder(tmp_path, seed=0)


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_wrong_channel_count_of_a_mask_is_said(tmp_path, mode):
    make_folder(tmp_path, 3)
    pixels = disc().astype(np.uint16) if mode == "I;16" else np.asarray(Image.fromarray(disc()).convert(mode))
    save_mask(tmp_path, pixels)
    with pytest.raises(DataError, match=f"pixel format '{mode}'; masks are 8-bit"):
        load_folder(tmp_path, seed=0)


def test_a_file_that_is_no_image_is_refused_at_once(tmp_path):
    make_folder(tmp_path, 3)
    (tmp_path / "images" / "case0.png").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"case0.png cannot be read as an image"):
        load_folder(tmp_path, seed=0)


def test_a_truncated_file_is_refused_when_read(tmp_path):
    make_folder(tmp_path, 3)
    path = tmp_path / "images" / "case0.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"case0.png cannot be read as an image"):
        read_first(tmp_path)


@pytest.mark.parametrize(
    "pixels",
    [
        disc(255),
        disc(1),
        np.zeros_like(disc()),
        np.full_like(disc(), 255),
        np.repeat(disc()[..., None], 3, axis=2),
        disc() > 0,
    ],
    ids=["255", "1", "empty", "full", "three equal channels", "one bit"],
)
def test_binary_masks_pass(tmp_path, pixels):
    make_folder(tmp_path, 3)
    save_mask(tmp_path, pixels)
    flat = pixels if pixels.ndim == 2 else pixels[..., 0]
    np.testing.assert_array_equal(read_first(tmp_path)[1], flat > 0)


def big_disc():
    columns, rows = np.meshgrid(np.arange(300), np.arange(200))
    return np.where(np.hypot(columns - 150, rows - 90) < 60, 255, 0).astype(np.uint8)


def make_big(root):
    make_folder(root, 3)
    Image.fromarray(frame(size=(300, 200))).save(root / "images" / "case0.png")
    return root


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_masks_with_ringing_pass_by_thresholding(tmp_path, channels):
    make_big(tmp_path)
    pixels = big_disc() if channels == 1 else np.repeat(big_disc()[..., None], 3, axis=2)
    save_mask(tmp_path, pixels, "case0.jpg", quality=75)
    on_disk = np.asarray(Image.open(tmp_path / "masks" / "case0.jpg"))
    assert len(np.unique(on_disk)) > 2
    mask = read_first(tmp_path)[1]
    assert np.count_nonzero(mask != (big_disc() > 0)) <= 10  # pixels, of an outline of some 400


@pytest.mark.parametrize(
    ("pixels", "name", "message"),
    [
        (disc(2), "case0.png", r"values 0, 2, 0.0% of it grey; allowed are 0 and 255"),
        (disc(128), "case0.png", r"values 0, 128, .* grey"),
        (disc() // 255 * frame()[..., 0], "case0.png", r"values 0, \d+, \d+, \d+ and \d+ more"),
        (disc(100), "case0.jpg", r"not a binary mask"),
        (disc(1), "case0.jpg", r"not a binary mask"),
        (np.ones_like(disc()), "case0.jpg", r"values 1, 0.0% of it grey"),
        (np.stack([disc(), disc(0), disc(0)], axis=2), "case0.png", r"coloured mask"),
    ],
    ids=["two labels", "grey", "soft", "grey JPEG", "0/1 JPEG", "all 1 JPEG", "red"],
)
def test_masks_that_are_not_binary_are_refused_with_what_was_found(tmp_path, pixels, name, message):
    make_folder(tmp_path, 3)
    save_mask(tmp_path, pixels, name, **({"quality": 100} if name.endswith("jpg") else {}))
    with pytest.raises(DataError, match=message):
        read_first(tmp_path)


def test_soft_jpeg_masks_are_refused(tmp_path):
    make_big(tmp_path)
    soft = np.asarray(Image.fromarray(big_disc()).resize((15, 10)).resize((300, 200), Image.Resampling.BILINEAR))
    save_mask(tmp_path, soft, "case0.jpg", quality=95)
    with pytest.raises(DataError, match=r"% of it grey"):
        read_first(tmp_path)


@pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="SECATEUR_DATA does not point at the real data")
@pytest.mark.parametrize(
    ("name", "counts"),
    [("polyp_kvasir", (440, 60, 100)), ("polyp_polypgen", (264, 43, 89))],
)
def test_real_folders_load(name, counts):
    root = Path(os.environ["SECATEUR_DATA"]) / name
    if not root.is_dir():
        pytest.skip(f"SECATEUR_DATA has no {name}")
    cases = load_cases(DataRecipe(source=str(root)))
    assert tuple(len(cases[split]) for split in ("train", "val", "test")) == counts
    image, mask = cases["test"][0].read()
    assert image.shape[:2] == mask.shape
    assert mask.any()
