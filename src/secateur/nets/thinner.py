"""The same network with fewer channels everywhere: the plain baseline of every compression."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from secateur.errors import RecipeError
from secateur.nets.spec import ModelSpec

_TOO_MANY = 1.5  # times the parameters asked for
_WIDTHS = ("widths", "channels", "features", "filters")  # how builders call the channels per level


def thinner(spec: ModelSpec, compression: float) -> ModelSpec:
    """Scale every width by one factor so that the network has 1 / ``compression`` of the parameters, or nearly.

    Args:
        spec: with the channels per level among its arguments, as ``widths``, ``channels``, ``features`` or ``filters``.
        compression: parameters before / after, 1 or more. Widths are whole numbers, so that the nearest count that can
            be had is taken.

    Raises:
        RecipeError: no argument holds the channels per level, or one channel per level is too many still.
    """
    key = next((key for key in _WIDTHS if isinstance(spec.kwargs.get(key), Sequence)), None)
    if key is None:
        raise RecipeError(
            f"{spec.builder} has none of the arguments {', '.join(_WIDTHS)}, so a thinner network cannot be built; "
            "leave small_compressions out."
        )
    widths: Sequence[int] = spec.kwargs[key]
    wanted = _parameters(spec) / compression
    first = widths[0]
    tried = {
        tuple(max(1, round(width * thin / (first * 8))) for width in widths): None for thin in range(1, first * 8 + 1)
    }
    specs = [replace(spec, kwargs={**spec.kwargs, key: list(found)}) for found in tried]
    low, high = 0, len(specs) - 1  # parameters grow with the widths
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _parameters(specs[middle]) < wanted else (low, middle)
    found = min(specs[max(low - 1, 0) : low + 1], key=lambda each: abs(_parameters(each) - wanted))
    if _parameters(found) > _TOO_MANY * wanted:
        raise RecipeError(
            f"the thinnest {spec.builder} has {_parameters(found)} parameters, a small dense network at compression "
            f"{compression:g} would have {wanted:.0f}; leave {compression:g} out of small_compressions."
        )
    return found


def _parameters(spec: ModelSpec) -> int:
    with torch.device("meta"):  # which holds no values
        return sum(parameter.numel() for parameter in spec.build().parameters())
