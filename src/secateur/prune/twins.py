"""Copies of a network to run in its stead: with random weights, or with its own, which they do not hold twice."""

import torch
from torch import Tensor, nn

from secateur.graph.copying import safe_copy, sharing_copy


def random_twin(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A float32 copy of ``model`` with random parameters and floating buffers, the same for every call of one seed.

    Run it in float64 within `secateur.prune.precision.InDoublePrecision`, after `widen_buffers_`.
    """
    blank = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, dtype=torch.float32), requires_grad=False)
        for parameter in model.parameters()
        if parameter.is_floating_point()
    }
    twin = safe_copy(model, instead=blank).requires_grad_(False)
    for tensor in [*twin.parameters(), *twin.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()
    randomise_(twin, seed=seed)
    return twin


def wide_random_twin(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """`random_twin` with floating buffers in float64, ready to run."""
    twin = random_twin(model, seed=seed)
    widen_buffers_(twin)
    return twin


def sharing_twin(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that shares the values of its parameters, and has its own buffers in float64.

    To be run within `secateur.prune.precision.InDoublePrecision` only, which leaves shared values alone.
    """
    twin = sharing_copy(model)
    values = {parameter.data_ptr() for parameter in model.parameters()}
    for parameter in twin.parameters():
        if parameter.data_ptr() not in values and parameter.is_floating_point():  # a scripted module copies itself
            parameter.data = parameter.data.double()
    widen_buffers_(twin)
    return twin


def widen_buffers_(model: nn.Module) -> None:
    """Floating buffers become float64; they stay the objects that they were, whoever holds them."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.double()


def randomise_(model: nn.Module, *, seed: int) -> None:
    """Replace every parameter and floating buffer by distinct values of a scale at which deep networks stay finite."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(_random_values(tensor, generator))


def _random_values(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.ndim > 1:
        fan_in = max(tensor[0].numel(), 1)
        values: Tensor = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * (2 / fan_in) ** 0.5
        return values
    places = torch.randperm(max(tensor.numel(), 1), generator=generator)  # in any order, but each once
    return (0.5 + (places + 0.5) / len(places)).reshape(tensor.shape).to(tensor.dtype)
