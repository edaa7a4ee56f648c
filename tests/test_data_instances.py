"""Folders of instance labels: every depth and numbering that is read, and what is refused with which words."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateur.data.instances import Marking, load_instances
from secateur.errors import DataError

LABELS = np.zeros((20, 24), np.int32)
LABELS[2:8, 3:9], LABELS[8:12, 3:9], LABELS[14:19, 15:22] = 1, 2, 3  # the first two touch


def tile(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)


def make_folder(root, labels=None, *, image=None, mask_name="case0.png", image_name="case0.png"):
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for i in range(3):
        Image.fromarray(tile(i)).save(root / "images" / f"case{i}.png")
        Image.fromarray(LABELS.astype(np.uint16)).save(root / "masks" / f"case{i}.png")
    for folder, name, pixels in (("masks", mask_name, labels), ("images", image_name, image)):
        if pixels is not None:
            (root / folder / "case0.png").unlink()
            picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
            picture.save(root / folder / name)
    return root


def read_first(root, marking=Marking.LABELS):
    cases = {case.id: case for of in load_instances(root, seed=0, marking=marking).values() for case in of}
    return cases["case0"].read()


def palette(labels):
    image = Image.new("P", labels.shape[::-1])
    image.putdata(labels.ravel().tolist())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (LABELS.astype(np.uint8), "case0.png"),
        (LABELS.astype(np.uint16), "case0.png"),
        (LABELS.astype(np.uint16) * 20000, "case0.png"),
        (LABELS.astype(np.uint16) * 20000, "case0.tif"),
        (LABELS * 500_000_000, "case0.tif"),
        (np.choose(LABELS, [0, 7, 8, 250]).astype(np.uint8), "case0.png"),
        (palette(LABELS), "case0.png"),
    ],
    ids=["8 bit", "16 bit", "16 bit, gaps", "16-bit TIFF", "32-bit TIFF", "gaps", "palette"],
)
def test_labels_of_any_depth_are_numbered_without_gaps(tmp_path, labels, name):
    found = read_first(make_folder(tmp_path, labels, mask_name=name))[1]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)


def test_a_file_without_background_keeps_all_of_its_nuclei(tmp_path):
    found = read_first(make_folder(tmp_path, (LABELS + 4).astype(np.uint8)))[1]
    np.testing.assert_array_equal(found, LABELS + 1)


def test_an_empty_tile_is_a_tile_without_nuclei(tmp_path):
    assert not read_first(make_folder(tmp_path, np.zeros_like(LABELS, np.uint8)))[1].any()


def rgb(image):
    return np.asarray(image.convert("RGB"))


GREY, OPAQUE = Image.fromarray(tile()[..., 0]), Image.fromarray(tile()).convert("RGBA")


@pytest.mark.parametrize("image", [GREY, OPAQUE, GREY.convert("LA"), OPAQUE.convert("RGB").quantize(64)])
def test_harmless_pixel_formats_become_rgb(tmp_path, image):
    found, _ = read_first(make_folder(tmp_path, image=image))
    assert (found.shape, found.dtype) == ((20, 24, 3), np.uint8)
    np.testing.assert_array_equal(found, rgb(image))


def test_a_transparent_image_is_refused(tmp_path):
    image = np.asarray(OPAQUE).copy()
    image[3, 4, 3] = 100
    with pytest.raises(DataError, match=r"case0.png is partly transparent.*without alpha channel"):
        read_first(make_folder(tmp_path, image=image))


@pytest.mark.parametrize(
    ("image", "name", "found"),
    [(tile()[..., 0].astype(np.uint16), "case0.png", "I;16"), (OPAQUE.convert("CMYK"), "case0.tif", "CMYK")],
)
def test_images_of_other_depths_are_refused_at_once(tmp_path, image, name, found):
    make_folder(tmp_path, image=image, image_name=name)
    with pytest.raises(DataError, match=f"pixel format '{found}'; images are 8-bit, RGB or grey. Rescale"):
        load_instances(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        (tile(), "case0.png", "pixel format 'RGB'; label images have one channel"),
        (LABELS.astype(np.float32), "case0.tif", "pixel format 'F'; label images have one channel of 8, 16 or 32-bit"),
        (LABELS.astype(np.uint8), "case0.jpg", "case0.jpg is a JPEG, which does not keep label numbers"),
        (LABELS[:, :20].astype(np.uint8), "case0.png", "the image is 24x20 and the labels 20x20 pixels"),
    ],
)
def test_files_that_cannot_be_labels_are_refused_before_reading(tmp_path, labels, name, message):
    make_folder(tmp_path, labels, mask_name=name)
    with pytest.raises(DataError, match=message):
        load_instances(tmp_path, seed=0)


def test_negative_labels_are_refused(tmp_path):
    make_folder(tmp_path, LABELS - 1, mask_name="case0.tif")
    with pytest.raises(DataError, match=r"holds the label -1; labels are 0 for the background.*to ignore to 0"):
        read_first(tmp_path)


def test_a_stack_of_labels_is_refused(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "masks" / "case0.png").unlink()
    page = Image.fromarray(LABELS.astype(np.uint16))
    page.save(tmp_path / "masks" / "case0.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match=r"case0.tif holds 2 pages"):
        read_first(tmp_path)


@pytest.mark.parametrize(
    "mask",
    [(LABELS > 0).astype(np.uint8), (LABELS > 0).astype(np.uint8) * 255, LABELS > 0],
    ids=["1", "255", "one bit"],
)
def test_a_binary_mask_is_refused_unless_components_are_asked_for(tmp_path, mask):
    make_folder(tmp_path, mask)
    with pytest.raises(DataError, match=r"all of its 2 separate pieces.* case1.png beside it numbers its nuclei"):
        read_first(tmp_path)  # the setting would not help, since the other files are no binary masks
    for name in ("case1.png", "case2.png"):
        shutil.copy(tmp_path / "masks" / "case0.png", tmp_path / "masks" / name)
    with pytest.raises(DataError, match=r"binary mask: all of its 2 separate pieces.*data.marking=binary"):
        read_first(tmp_path)
    found = read_first(tmp_path, Marking.BINARY)[1]
    expected = np.choose(LABELS, [0, 1, 1, 2])  # the two that touch are one component
    np.testing.assert_array_equal(found, expected)


def test_components_join_at_corners(tmp_path):
    mask = np.zeros((20, 24), np.uint8)
    mask[2:4, 2:4] = mask[4:6, 4:6] = 255
    assert read_first(make_folder(tmp_path, mask), Marking.BINARY)[1].max() == 1


def test_one_value_in_one_piece_is_one_nucleus(tmp_path):
    one = (LABELS == 3).astype(np.uint8) * 9
    np.testing.assert_array_equal(read_first(make_folder(tmp_path, one))[1], LABELS == 3)


def test_labels_where_a_binary_mask_was_promised_are_refused(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(DataError, match=r"holds 3 labels \(1, 2, 3\) and not one; .* data.marking=labels"):
        read_first(tmp_path, Marking.BINARY)


@pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="SECATEUR_DATA does not point at the real data")
@pytest.mark.parametrize(
    ("name", "counts", "nuclei", "grey"),
    [
        ("nuclei_kumar", (12, 4, 14), 444, False),
        ("nuclei_dsb2018_histology", (45, 12, 16), None, False),
        ("nuclei_dsb2018_fluorescence", (130, 25, 50), None, True),
    ],
)
def test_real_folders_load(name, counts, nuclei, grey):
    root = Path(os.environ["SECATEUR_DATA"]) / name
    if not root.is_dir():
        pytest.skip(f"SECATEUR_DATA has no {name}")
    cases = load_instances(root, seed=0)
    assert tuple(len(cases[split]) for split in ("train", "val", "test")) == counts
    image, labels = cases["val"][0].read()
    assert image.shape == (*labels.shape, 3)
    assert (image == image[..., :1]).all() == grey
    assert np.bincount(labels.ravel()).min() > 0
    assert nuclei is None or labels.max() == nuclei
