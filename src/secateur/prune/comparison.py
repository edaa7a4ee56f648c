"""Run the masked and the smaller network in float64, in both modes, and measure how far apart their outputs are."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from secateur.graph.records import ChannelGraph, Kept
from secateur.prune.precision import InDoublePrecision
from secateur.prune.reads import gated, masks
from secateur.prune.statistics import KeptStatistics

RELATIVE_TOLERANCE = 1e-9  # float64 sums in another order differ by about 1e-13 of the largest output
ABSOLUTE_TOLERANCE = 1e-10

_LAST_BIT = 2.0**-52
_ROUNDINGS = 100  # there is one in every layer; moving the last bit of the inputs is one alone
_CHAOS = 1e-3  # of the largest output: a network that makes that of rounding shows nothing

MODES = {"eval": False, "train": True}

BREAKS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What a network of the wrong widths may raise."""

Outputs = dict[str, list[Tensor]]
"""Every output tensor, by mode."""


@dataclass(frozen=True)
class Difference:
    """How far one output of the smaller network is from that of the masked one.

    Attributes:
        absolute: the largest difference.
        scale: the largest value of the masked network's.
        noise: how far the masked network's moves with the last bit of the inputs; 0 where that was not asked, see
            `compare`.
    """

    absolute: float
    scale: float
    noise: float = 0.0

    @property
    def close(self) -> bool:
        """Whether that is rounding; False also where a number is not finite."""
        rounding = min(_ROUNDINGS * self.noise, _CHAOS * self.scale)
        tolerance = max(ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * self.scale, rounding)
        return math.isfinite(self.absolute) and self.absolute <= tolerance

    @property
    def is_chaos(self) -> bool:
        """Whether rounding alone moves this output by so much that nothing can be told from it."""
        return self.noise > _CHAOS * self.scale

    @property
    def relative(self) -> float:
        """The difference relative to the largest value."""
        return self.absolute / self.scale if self.scale else 0.0

    def __str__(self) -> str:
        text = f"an output differs by {self.absolute:.3g} of {self.scale:.3g}"
        return f"{text}, the last bit of the inputs alone moves it by {self.noise:.3g}" if self.is_chaos else text


def masked_outputs(model: nn.Module, graph: ChannelGraph, kept: Kept, inputs: Sequence[Tensor]) -> Outputs:
    """The outputs of ``model`` in both modes, in float64 and without drop-out, where ``kept`` is all that is read.

    Args:
        model: in any precision; its buffers have to be in float64, and are what they were afterwards.
        graph: its groups.
        kept: the units that are read.
        inputs: in float64.
    """
    found = {}
    for mode, training in MODES.items():
        with (
            run_in_double(model, training),
            gated(model, graph, masks(graph, kept)),
            KeptStatistics(model, graph, kept),
        ):
            found[mode] = tensors_of(model(*(tensor.clone() for tensor in inputs)))  # it may write to them
    return found


def outputs(model: nn.Module, inputs: Sequence[Tensor]) -> Outputs:
    """The same for a network as it is."""
    found = {}
    for mode, training in MODES.items():
        with run_in_double(model, training):
            found[mode] = tensors_of(model(*(tensor.clone() for tensor in inputs)))
    return found


def differences(masked: Sequence[Tensor], removed: Sequence[Tensor]) -> list[Difference] | None:
    """One for each output; None where there are others or they have other shapes."""
    if [tensor.shape for tensor in masked] != [tensor.shape for tensor in removed]:
        return None
    return [
        Difference(_largest(before - after), _largest(before)) for before, after in zip(masked, removed, strict=True)
    ]


def compare(
    masked: Outputs, removed: Outputs, inputs: Sequence[Tensor], again: Callable[[Sequence[Tensor]], Outputs]
) -> dict[str, list[Difference] | None]:
    """`differences` by mode; where they are more than what sums in another order make, with their noise.

    Hundreds of norms and rectifiers one after the other magnify rounding by many powers of ten. How much is seen from
    the masked network alone: ``again`` makes it anew and returns its outputs for other inputs, those of `nudge`. A
    network that does not give ``masked`` for ``inputs`` a second time moves for another reason, and has no noise.
    """
    found = {mode: differences(masked[mode], removed[mode]) for mode in MODES}
    if all(difference.close for each in found.values() for difference in each or ()):
        return found
    repeated, moved = again(inputs), again(nudge(inputs))
    for mode, each in found.items():
        if each is not None and all(map(torch.equal, masked[mode], repeated[mode])):
            noises = map(_largest, map(torch.sub, masked[mode], moved[mode]))
            found[mode] = [replace(difference, noise=noise) for difference, noise in zip(each, noises, strict=True)]
    return found


def nudge(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The same inputs, but for the last bit of every number in float64, which moves at random."""
    generator = torch.Generator().manual_seed(0)
    return [
        tensor * (1 + _LAST_BIT * torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor))
        if tensor.is_floating_point()
        else tensor
        for tensor in inputs
    ]


def does_not_run(error: Exception) -> str:
    """The failure in one line; a lack of memory says nothing of the network and is raised on."""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        raise error
    return f"the smaller network does not run ({next(iter(str(error).strip().splitlines()), type(error).__name__)})"


def tensors_of(output: Any) -> list[Tensor]:  # networks return tensors, lists, dicts; label maps are compared too
    """The tensors in what a network returns, in floating point; a complex one as its real and imaginary parts.

    Raises:
        ValueError: there is none that could be compared.
    """
    leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    if not leaves:
        raise ValueError(f"the network returns {type(output).__name__}, in which no tensor is found")
    real = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in leaves]
    return [leaf if leaf.is_floating_point() else leaf.double() for leaf in real]


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


@contextmanager
def run_in_double(model: nn.Module, training: bool) -> Iterator[None]:
    """Run ``model`` in float64 in a mode, without gradients; see `repeatable`."""
    with torch.no_grad(), InDoublePrecision(model), repeatable(model, training):
        yield


@contextmanager
def repeatable(model: nn.Module, training: bool) -> Iterator[None]:
    """Run ``model`` in a mode, without drop-out, with the same random numbers each time; its buffers come back."""
    model.train(training)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), _NoDropout():
        torch.manual_seed(0)
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


@final
class _NoDropout(TorchFunctionMode):
    """Drop-out draws one number per channel or element, so that networks of other widths drop other things."""

    _dropouts = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout})

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in self._dropouts:
            return args[0] if args else (kwargs or {})["input"]
        if func is F.scaled_dot_product_attention:
            kwargs = {**(kwargs or {}), "dropout_p": 0.0}
        return func(*args, **(kwargs or {}))
