"""Masks by magnitude, and by chance as the baseline that magnitude has to beat."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.prune.weights.masks import WeightMasks
from secateur.prune.weights.prunable import PrunableWeight
from secateur.prune.weights.scopes import Scope, WeightKeys
from secateur.prune.weights.selection import GONE
from secateur.prune.wrappers import parameters_of


def magnitude_masks(
    model: nn.Module,
    weights: Sequence[PrunableWeight],
    scope: Scope,
    *,
    within: WeightMasks | None = None,
) -> WeightMasks:
    """Keep the weights of largest absolute value; ``model`` is untouched (Han et al. 2015; arXiv 2206.07422).

    Compared are the exact values. Among equal ones the later layer's leaves first, in a layer the higher index.
    A layer is copied while it is looked at, never all of them at once.

    Args:
        model: the network, or a wrapper around it such as `DistributedDataParallel`.
        weights: what may leave, from `prunable_weights`.
        scope: how many stay, and which compete.
        within: an earlier round's masks: what has left stays out, and counts as removed.

    Raises:
        BudgetError: nothing would be left, or ``within`` keeps less than what is to stay.
        InputError: weights that are not finite.
        PlanMismatchError: ``weights`` or ``within`` belong to another network.
    """
    parameters = parameters_of(model, {weight.name: weight.shape for weight in weights})
    for name, parameter in parameters.items():
        if not bool(torch.isfinite(torch.linalg.vector_norm(parameter.detach(), torch.inf))):
            raise InputError(
                f"the network's {name!r} is not finite, so its weights have no order; "
                f"go back to a checkpoint from before the training diverged."
            )
    wide = any(parameter.dtype is torch.float64 for parameter in parameters.values())

    def keys(weight: PrunableWeight) -> Tensor:
        # The bits of floats that are not negative are in the order of the floats.
        magnitudes = parameters[weight.name].detach().to(torch.float64 if wide else torch.float32).abs()
        return magnitudes.view(torch.int64 if wide else torch.int32)

    return _choose(weights, scope, keys, within, f"largest magnitude, {scope}")


def random_masks(
    weights: Sequence[PrunableWeight], scope: Scope, *, seed: int, within: WeightMasks | None = None
) -> WeightMasks:
    """Keep as many weights as `magnitude_masks` would, any of them, drawn from ``seed``; see there."""

    draws = torch.Generator().manual_seed(seed)
    seeds = {weight.name: int(torch.randint(2**62, (), generator=draws)) for weight in weights}

    def keys(weight: PrunableWeight) -> Tensor:
        generator = torch.Generator().manual_seed(seeds[weight.name])
        return torch.randint(0, 2**31 - 1, weight.shape, generator=generator, dtype=torch.int32)

    return _choose(weights, scope, keys, within, f"random (seed {seed}), {scope}")


def _choose(
    weights: Sequence[PrunableWeight], scope: Scope, keys: WeightKeys, within: WeightMasks | None, choice: str
) -> WeightMasks:
    def remaining(weight: PrunableWeight) -> Tensor:
        candidates = keys(weight)
        if within is None:
            return candidates
        return candidates.masked_fill(~within.of(weight.name, weight.shape).to(candidates.device), GONE)

    chosen = scope.choose(weights, keys if within is None else remaining)
    kept = {weight.name: mask.cpu().contiguous() for weight, mask in zip(weights, chosen, strict=True)}
    return WeightMasks(kept, choice, scope.compression, scope.too_small(weights))
