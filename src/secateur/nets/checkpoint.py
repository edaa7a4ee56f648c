"""Read weights from pickled checkpoints without running what a pickle may carry."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from secateur.errors import RecordError

# NumPy numbers, as classes: what nnU-Net's log of losses consists of. They rebuild plain numbers and run nothing.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # before and since NumPy 2
    np.dtype,
    *(type(np.dtype(kind)) for kind in "fdlqi?"),
]


def read_checkpoint(path: Path) -> Any:  # whatever was saved
    """Read a ``.pth`` or ``.pt`` file on the CPU.

    Such files are pickles, which can run any code when they are read. Only tensors, plain Python values and NumPy
    numbers are taken (``weights_only=True``); what needs more is refused.

    Raises:
        RecordError: the file is missing, damaged, or needs more than that.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split()).partition("Please file an issue")[0]
        raise RecordError(
            f"{path} is a pickle that holds more than weights, and reading it could run any code; only tensors and "
            f"plain values are read. If you trust whoever made it, save its state dict again with torch.save "
            f"and give that. ({reason[-300:]})"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise RecordError(f"{path} is not a readable checkpoint ({' '.join(str(error).split())[:200]}).") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a network's state dict on the CPU, from ``.safetensors`` or as `read_checkpoint` does.

    A checkpoint may be the state dict, or hold one under a name such as ``model`` or ``state_dict``.

    Raises:
        RecordError: the file is missing, damaged, or holds no such set of tensors, or several.
    """
    if path.suffix == ".safetensors":
        try:
            weights: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise RecordError(f"{path} is not a readable safetensors file ({error}).") from error
        return weights
    checkpoint = read_checkpoint(path)
    inside = list(checkpoint.values()) if isinstance(checkpoint, Mapping) else []
    found = [entry for entry in [checkpoint, *inside] if _holds_tensors(entry)]
    if len(found) != 1:
        raise RecordError(f"{path} holds {len(found)} sets of weights; save the network's state dict alone.")
    return dict(found[0].items())


def put_weights_(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load ``weights`` into ``model``; wrappers' prefixes (``module.``, ``_orig_mod.``) are taken off the names.

    Raises:
        RecordError: names or shapes differ; the message carries the first of them.
    """
    bare = {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in weights.items()}
    try:
        model.load_state_dict(bare)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines() if line.strip()][1:2]
        raise RecordError(
            f"the weights in {source} are not those of the {type(model).__name__} that they are for "
            f"({' '.join(first)[:200]}); do both come from the same training?"
        ) from error


def _holds_tensors(entry: object) -> bool:
    return isinstance(entry, Mapping) and bool(entry) and all(isinstance(value, Tensor) for value in entry.values())
