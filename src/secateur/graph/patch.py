"""The smallest inputs a network accepts: proofs run on them, and users are told which sides are allowed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.graph.copying import safe_copy
from secateur.graph.records import InputSpec

_SIDES = (8, 16, 32, 64, 128, 256, 512)


def minimal_patch(model: nn.Module, inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The next to smallest power-of-two sides that train and eval mode accept, with a batch of two.

    Next to smallest, so that norms at the coarsest level see several positions. Sides never exceed the
    example's own; where no smaller input passes, the example's shapes are returned.
    """
    twin = safe_copy(model)
    accepted: list[tuple[InputSpec, ...]] = []
    for side in _SIDES:
        patch = tuple(_shrink(spec, side) for spec in inputs)
        if accepted and patch == accepted[-1]:
            break
        if accepts(twin, patch):
            accepted.append(patch)
        if len(accepted) == 2:
            break
    return accepted[-1] if accepted else tuple(inputs)


def side_multiple(model: nn.Module, spec: InputSpec) -> int | None:
    """The number of which the sides of the input must be multiples; None if none up to 128 is found.

    Tried are one and three multiples beyond 256 (64 for volumes): at the coarsest level of a small input, or for a
    single remainder, networks accept by chance what they refuse elsewhere.
    """
    twin = safe_copy(model).eval()
    channels, *space = spec.shape[1:]
    start = 256 if len(space) < 3 else 64
    for multiple in (1, 2, 4, 8, 16, 32, 64, 128):
        odd = [InputSpec((1, channels, *[start + times * multiple] * len(space)), spec.dtype) for times in (1, 3)]
        if all(keeps_sides(twin, sides) for sides in odd):
            return multiple
    return None


def accepts(model: nn.Module, inputs: Sequence[InputSpec], modes: Sequence[bool] = (True, False)) -> bool:
    """Whether a forward pass runs in train (True) and eval mode (False). The model's state may change."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            for training in modes:
                model.train(training)(*random_inputs(inputs, like=model))
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError):
        return False
    return True


def keeps_sides(model: nn.Module, spec: InputSpec) -> bool:
    """Whether an eval-mode forward runs and returns, first of all, a map of the input's own sides."""
    if not accepts(model, (spec,), modes=(False,)):
        return False
    with torch.no_grad():
        first = next(
            leaf for leaf in tree_leaves(model(*random_inputs((spec,), like=model))) if isinstance(leaf, Tensor)
        )
    return tuple(first.shape[2:]) == spec.shape[2:]


def random_inputs(
    inputs: Sequence[InputSpec], *, like: nn.Module, seed: int = 0, dtype: torch.dtype | None = None
) -> tuple[Tensor, ...]:
    """Seeded normal inputs on the device of ``like``; integer inputs are zeros."""
    generator = torch.Generator().manual_seed(seed)
    device = next(like.parameters()).device
    return tuple(
        torch.randn(spec.shape, generator=generator, dtype=torch.float64).to(device, dtype or spec.dtype)
        if spec.dtype.is_floating_point
        else torch.zeros(spec.shape, dtype=spec.dtype, device=device)
        for spec in inputs
    )


def _shrink(spec: InputSpec, side: int) -> InputSpec:
    if len(spec.shape) < 4:
        return spec
    batch, channels, *sides = spec.shape
    return InputSpec((max(batch, 2), channels, *(min(size, side) for size in sides)), spec.dtype)
