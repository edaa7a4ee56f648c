"""The smallest inputs a network accepts: proofs run on them, and users are told which sides are allowed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.graph.copying import bare_copy, safe_copy
from secateur.graph.records import InputSpec

_SIDES = (8, 16, 32, 64, 128, 256, 512)
_SAMPLES = 2  # so that samples can differ
_GROWTH = 1e4  # of the square of a rounding error by norms over few values: a hundredfold of the error


def minimal_patch(model: nn.Module, inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The next to smallest input that train and eval mode accept and on which rounding errors stay small.

    Sides are powers of two and double one after the other, the last one first: a proof of a volume then runs on half
    or a quarter of a cube. Next to smallest, so that the coarsest level has several positions. Sides never exceed the
    example's own; where no smaller input passes, the example's shapes are returned. The batch is two, or up to 16
    where that keeps norms from magnifying rounding errors, see `_error_growth`.
    """
    twin = bare_copy(model)
    accepted: list[tuple[InputSpec, ...]] = []
    rank = max(len(spec.shape) for spec in inputs) - 2
    sizes = (
        tuple(_shrink(spec, side, doubled) for spec in inputs) for side in _SIDES for doubled in range(max(rank, 1))
    )
    for patch in dict.fromkeys(sizes):
        with _norm_counts(twin) as counts:
            if not accepts(twin, patch):
                continue
        enough, growth = _with_samples(twin, patch, counts)
        accepted.append(enough)
        if len(accepted) > 1 and growth <= _GROWTH:
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
    """Whether a forward pass runs in train (True) and eval mode (False). The model's state may change.

    What it warns of is not shown: nobody asked for this input.
    """
    fork = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    try:
        with torch.no_grad(), fork, warnings.catch_warnings():
            warnings.simplefilter("ignore")
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


def _shrink(spec: InputSpec, side: int, doubled: int) -> InputSpec:
    """``spec`` with at most ``side`` along each axis of space, twice that along the last ``doubled`` ones."""
    if len(spec.shape) < 4:
        return spec
    batch, channels, *sides = spec.shape
    limits = [side if axis < len(sides) - doubled else 2 * side for axis in range(len(sides))]
    return InputSpec((max(batch, _SAMPLES), channels, *map(min, sides, limits)), spec.dtype)


def _with_samples(
    model: nn.Module, patch: tuple[InputSpec, ...], counts: "_Counts"
) -> tuple[tuple[InputSpec, ...], float]:
    """``patch`` with the smallest batch at which rounding errors stay small, if there is one, and how they grow."""
    for times in (2, 4, 8) if _error_growth(counts, 1) > _GROWTH else ():
        larger = tuple(InputSpec((spec.shape[0] * times, *spec.shape[1:]), spec.dtype) for spec in patch)
        if (growth := _error_growth(counts, times)) <= _GROWTH and accepts(model, larger):
            return larger, growth
    return patch, _error_growth(counts, 1)


@dataclass
class _Counts:
    """Over how many values every call of a norm takes its mean and variance: over the batch, or in each sample."""

    batch: list[int] = field(default_factory=list)
    sample: list[int] = field(default_factory=list)


@contextmanager
def _norm_counts(model: nn.Module) -> Iterator[_Counts]:
    """Counted during train-mode forward passes of ``model``."""
    counts = _Counts()

    def note(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        shape = arguments[0].shape
        if not norm.training:
            return
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            counts.batch.append(shape[0] * prod(shape[2:]))
        else:
            channels = shape[1] // norm.num_groups if isinstance(norm, nn.GroupNorm) else 1
            counts.sample.append(channels * prod(shape[2:]))

    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, kinds)]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def _error_growth(counts: _Counts, times: int) -> float:
    """By how much the expected square of a rounding error grows through the norms, with ``times`` as many samples.

    Over n normal values a norm passes on n - 2 of n directions and divides by a variance whose reciprocal has the
    mean n / (n - 3): (n - 2) / (n - 3) for each norm. Below four values that mean is infinite, and only the norm's
    epsilon of 1e-5 bounds it, to about 1 / sqrt(epsilon): over two values, a norm is next to a sign function, which
    takes most errors away and makes a few as large as the signal.
    """
    values = [*(count * times for count in counts.batch), *counts.sample]
    return prod((count - 2) / (count - 3) if count > 3 else 316.0 for count in values)
