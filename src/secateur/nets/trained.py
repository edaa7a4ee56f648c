"""A trained network from where other tools keep it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from secateur.errors import RecordError
from secateur.nets.spec import ModelSpec


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and what is known of it.

    Attributes:
        model: in eval mode, on the CPU.
        input_shape: of one sample with its batch dimension, ``(1, C, *space)``; None where nothing says.
        spec: how to build it again without the folder; None where its arguments are not plain values.
        weights: the file that they were read from.
    """

    model: nn.Module
    input_shape: tuple[int, ...] | None
    spec: ModelSpec | None
    weights: Path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file that another tool wrote.

    Raises:
        RecordError: the file is missing or is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path} holds a {type(values).__name__}, not a JSON object.")
    return values
