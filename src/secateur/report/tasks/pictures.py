"""Pictures as addresses that hold their data, and the prediction files of a case that they are made of."""

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]

_QUALITY = 80


def image_file(folder: Path, case_id: str) -> Path:
    """The image of a case in a predictions folder."""
    return folder / f"{case_id}_image.jpg"


def truth_file(folder: Path, case_id: str) -> Path:
    """Its truth."""
    return folder / f"{case_id}_truth.png"


def prediction_file(folder: Path, case_id: str) -> Path:
    """What the network found in it."""
    return folder / f"{case_id}.png"


def pictures_exist(case_id: str, *, dense: Path, pruned: Path) -> bool:
    """Whether both predictions folders hold what the pictures of a case are made of."""
    files = (image_file(dense, case_id), truth_file(dense, case_id), prediction_file(dense, case_id))
    return all(path.is_file() for path in (*files, prediction_file(pruned, case_id)))


def jpeg(image: Image.Image) -> str:
    """A photograph."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()


def overlay(levels: NDArray[np.uint8], colours: Sequence[Colour], opacities: Sequence[int]) -> str:
    """A palette PNG to lie on a photograph: pixels of level n have the n-th colour and opacity, of 255."""
    picture = Image.fromarray(levels).convert("P")
    picture.putpalette([part for colour in colours for part in colour])
    buffer = io.BytesIO()
    bits = 2 if len(colours) <= 4 else 4
    picture.save(buffer, "PNG", optimize=True, bits=bits, transparency=bytes(opacities))
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
