"""Whatever a command calls MODEL, opened: a folder of ours, another tool's, or a builder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.errors import InputError, RecipeError
from secateur.nets.bundle import is_bundle, load_bundle
from secateur.nets.checkpoint import put_weights_, read_weights
from secateur.nets.nnunet import is_nnunet, load_nnunet
from secateur.nets.spec import ModelSpec
from secateur.prune.plan import PruningPlan
from secateur.recipes.recipe import read_recipe
from secateur.store.networks import ARCHITECTURE, WEIGHTS, load, read_architecture, read_input_shape
from secateur.store.runs import RunFolder

_RECIPE = "recipe.yaml"
_NO_ARGUMENTS = "{}"


@dataclass(frozen=True)
class OpenedModel:
    """A network and what is known of it.

    Attributes:
        name: as the user gave it.
        model: in eval mode, on the CPU.
        input_shape: of one sample with its batch dimension, ``(1, C, *space)``.
        spec: how to build the dense network again without what ``name`` stands for; None where nothing says.
        plan: what was removed from that network earlier.
        weights: the file that the weights come from; None where the builder made them.
    """

    name: str
    model: nn.Module
    input_shape: tuple[int, ...]
    spec: ModelSpec | None = None
    plan: PruningPlan | None = None
    weights: Path | None = None


def open_model(
    model: str, *, kwargs: str = _NO_ARGUMENTS, input_shape: str = "", weights: Path | None = None
) -> OpenedModel:
    """Open whatever a command calls MODEL.

    Args:
        model: a run folder, a folder that `secateur.save` wrote, ``package.module:callable``, an nnU-Net's
            trained-model folder (or a fold or checkpoint in it), or the folder of a MONAI bundle.
        kwargs: JSON arguments of the callable.
        input_shape: takes the place of what the model says of itself.
        weights: a state dict for the callable's network, see `secateur.nets.checkpoint.read_weights`. Without it the
            weights are those that the callable makes, from a fixed random state.

    Raises:
        InputError: ``model`` is none of these, cannot be read, or does not say what it takes; the message says why.
    """
    shape = parse_shape(input_shape) if input_shape else None
    path = Path(model)
    if ":" in model and not path.exists():
        return _open_builder(model, kwargs, shape, weights)
    if kwargs != _NO_ARGUMENTS or weights is not None:
        raise InputError(
            f"--kwargs and --weights go with a builder, package.module:callable; {model} brings its own network."
        )
    return _open_folder(model, path, shape)


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder with a recipe, and so with data and a way to recover."""
    return (path / _RECIPE).is_file()


def is_saved_alone(path: Path) -> bool:
    """Whether ``path`` holds a network of ours without a recipe: pruned without data, or saved in Python."""
    return (path / ARCHITECTURE).is_file() and not is_run(path)


def parse_shape(text: str) -> tuple[int, ...]:
    """``"1,3,352,352"`` as numbers.

    Raises:
        InputError: not at least three positive numbers.
    """
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) < 3 or min(shape) < 1:
        raise InputError(
            f"--input-shape {text!r} is not a shape; write batch, channels and sides, such as 1,3,352,352."
        )
    return shape


def _open_builder(name: str, kwargs: str, shape: tuple[int, ...] | None, weights: Path | None) -> OpenedModel:
    if shape is None:
        raise InputError("a network by its builder needs --input-shape, such as 1,3,352,352.")
    spec = ModelSpec(name, _arguments(kwargs))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = spec.build()
    if weights is not None:
        put_weights_(network, read_weights(weights), weights)
    return OpenedModel(name, network.cpu().eval(), shape, spec, weights=weights)


def _open_folder(name: str, path: Path, shape: tuple[int, ...] | None) -> OpenedModel:
    if is_run(path) or is_saved_alone(path):
        return _open_own(name, path, shape)
    if is_nnunet(path):
        trained = load_nnunet(path)
    elif is_bundle(path):
        trained = load_bundle(path)
    else:
        raise InputError(
            f"{name} is not a run folder, nor another MODEL: an nnU-Net's trained-model folder (with plans.json and "
            f"dataset.json), a MONAI bundle (with configs and models), a folder that secateur.save wrote, or a "
            f"package.module:callable."
        )
    known = _known(name, shape or trained.input_shape)
    return OpenedModel(name, trained.model, known, trained.spec, weights=trained.weights)


def _open_own(name: str, path: Path, shape: tuple[int, ...] | None) -> OpenedModel:
    if is_run(path):
        RunFolder(path).check()
        side = read_recipe(path / _RECIPE).data.size
        own: tuple[int, ...] | None = (1, 3, side, side)
    else:
        own = read_input_shape(path)
    spec, plan = read_architecture(path)
    return OpenedModel(name, load(path), _known(name, shape or own), spec, plan, path / WEIGHTS)


def _known(name: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise InputError(f"{name} does not say what it takes; give --input-shape, such as 1,3,352,352.")
    return shape


def _arguments(kwargs: str) -> dict[str, Any]:
    try:
        arguments = json.loads(kwargs)
    except json.JSONDecodeError as error:
        raise RecipeError(f"--kwargs {kwargs!r} is not JSON ({error}).") from error
    if not isinstance(arguments, dict):
        raise RecipeError(f"--kwargs {kwargs!r} is not a JSON object; write names and values.")
    return arguments
