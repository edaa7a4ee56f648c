"""Which channels every consumer reads as a constant, whatever the input of the network, and how it reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from secateur.graph.copying import safe_copy
from secateur.graph.records import ChannelGraph, InputSpec
from secateur.graph.tensors import named_tensors
from secateur.prune.comparison import repeatable
from secateur.prune.influence import Influence, InputDependentError
from secateur.prune.reads import ReadSite, read_sites

ROUNDING = 1e-11  # of float64, in what resizing, means and norms make of equal numbers; relative, or absolute below one

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ARGUMENTS: Mapping[Any, tuple[str, ...]] = {  # of functions of torch, which have no type of their own
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _CONVOLUTION),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _TRANSPOSED),
    F.linear: ("input", "weight", "bias"),
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), ("input", "weight")),
}


@dataclass(frozen=True)
class Reading:
    """What one consumer reads, in all of its calls.

    Legend: Q convolution groups, I input and O output channels of each, T kernel elements.

    Attributes:
        site: the consumer.
        constants: float64 ``(Q, I)`` on the CPU: the value of a channel that is the same at every position, for every
            sample and every input; NaN where it may depend on the input, infinite where it differs otherwise, between
            positions, calls or sizes.
        input_first: the weight's input dimension comes first, as in transposed convolutions.
        bias: the parameter that the consumer, and nothing else, adds to what it writes. None where there is none.
        borders: output elements differ in which taps of the kernel they get: zero padding, or a transposed convolution.
    """

    site: ReadSite
    constants: Tensor
    input_first: bool
    bias: str | None
    borders: bool

    def by_group(self, line: Tensor) -> Tensor:
        """What holds of each index of the weight's input dimension ``(C_in,)``, per convolution group ``(Q, I)``."""
        return line.repeat(self.constants.numel() // len(line)).reshape(self.constants.shape)

    def everywhere(self, grouped: Tensor) -> Tensor:
        """For each index of the weight's input dimension ``(C_in,)``, what holds in every convolution group."""
        return grouped.reshape(-1, self.site.input_channels).all(0)

    def rows(self, line: Tensor) -> Tensor:
        """What holds of each index of the weight's output dimension, per convolution group ``(Q, O)``."""
        groups = len(self.constants)
        return line.expand(groups, -1) if self.input_first else line.reshape(groups, -1)

    def kernel(self, weight: Tensor) -> Tensor:
        """``weight`` as a new tensor ``(Q, O, I, T)``."""
        groups, inputs = self.constants.shape
        if self.input_first:
            return weight.detach().reshape(groups, inputs, weight.shape[1], -1).transpose(1, 2).contiguous()
        return weight.detach().reshape(groups, -1, inputs, weight[0, 0].numel()).clone()

    def weight(self, kernel: Tensor, like: Tensor) -> Tensor:
        """The inverse of `kernel`: the tensor of the shape of ``like``."""
        return (kernel.transpose(1, 2) if self.input_first else kernel).reshape(like.shape)

    def merged(self, other: "Reading") -> "Reading":
        """This reading and that of another call or size: constants on which they disagree differ by position."""
        if self.constants.shape != other.constants.shape or self.input_first != other.input_first:
            return replace(self, constants=torch.full_like(self.constants, torch.nan))
        unknown = self.constants.isnan() | other.constants.isnan()
        agree = _close(self.constants, other.constants)
        constants = torch.where(agree, self.constants, torch.inf).masked_fill(unknown, torch.nan)
        bias = self.bias if self.bias == other.bias else None
        return replace(self, constants=constants, bias=bias, borders=self.borders or other.borders)


def read_constants(model: nn.Module, graph: ChannelGraph, sizes: Sequence[Sequence[InputSpec]]) -> dict[str, Reading]:
    """What every consumer of a group reads in eval mode, by the name of its weight.

    Consumers that only train mode reaches, such as deep-supervision heads, are seen in train mode without drop-out.
    A network that asks Python for numbers made of its input has no constants.

    Args:
        model: a network in float64; untouched.
        graph: its groups.
        sizes: inputs to run it on; what is constant is so at each of these.
    """
    try:
        found = [_run(safe_copy(model), graph, size, training=False) for size in sizes]
        in_training = _run(safe_copy(model), graph, sizes[0], training=True)
    except InputDependentError:
        return {}
    readings: dict[str, Reading] = {}
    for weight, reading in (item for at_size in found for item in at_size.items()):
        readings[weight] = readings[weight].merged(reading) if weight in readings else reading
    return {**in_training, **readings}


def _run(twin: nn.Module, graph: ChannelGraph, inputs: Sequence[InputSpec], *, training: bool) -> dict[str, Reading]:
    device = next(twin.parameters()).device
    unknown = [torch.full(spec.shape, torch.nan, dtype=torch.float64, device=device) for spec in inputs]
    calls = _Calls(twin, graph)
    with torch.no_grad(), repeatable(twin, training), Influence(), calls:
        twin(*unknown)
    return calls.readings()


_ANOTHER_CALL = 0  # in the place of a weight's id


@final
class _Calls(TorchFunctionMode):
    """While active, notes every call of a consumer, and who adds which bias."""

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        super().__init__()
        tensors = named_tensors(model)
        self._sites = {id(tensors[site.weight]): site for site in read_sites(graph)}
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._adders: dict[str, set[int]] = {}
        self._seen: list[_Call] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _ARGUMENTS:
            self._note(func, dict(zip(_ARGUMENTS[func], args, strict=False)) | (kwargs or {}))
        else:
            for name in filter(None, (self._names.get(id(leaf)) for leaf in pytree.tree_leaves((args, kwargs)))):
                self._adders.setdefault(name, set()).add(_ANOTHER_CALL)
        return func(*args, **(kwargs or {}))

    def _note(self, func: Callable[..., Any], given: Mapping[str, Any]) -> None:
        weight, bias = given.get("weight"), self._names.get(id(given.get("bias")))
        if bias is not None:
            self._adders.setdefault(bias, set()).add(id(weight))
        site = self._sites.get(id(weight))
        if site is None:
            return
        assert isinstance(weight, Tensor)
        names, read = _ARGUMENTS[func], given["input"]
        lines = read.movedim(read.ndim - weight.ndim + 1 if "stride" in names else -1, 0).flatten(1)
        self._seen.append(
            _Call(
                site,
                least=lines.amin(1),
                largest=lines.amax(1),
                loudest=float(weight.abs().max().clamp_min(1)),
                groups=int(given.get("groups", 1)),
                input_first=names is _TRANSPOSED or "bias" not in names,
                bias=bias,
                borders=_has_borders(names, given, weight),
            )
        )

    def readings(self) -> dict[str, Reading]:
        """What was read, by the name of the weight."""
        found: dict[str, Reading] = {}
        for call in self._seen:
            bias = call.bias if call.bias is None or len(self._adders[call.bias]) == 1 else None
            constants = call.constants().reshape(call.groups, -1).cpu()
            reading = Reading(call.site, constants, call.input_first, bias, call.borders)
            weight = call.site.weight
            found[weight] = found[weight].merged(reading) if weight in found else reading
        return found


@dataclass(frozen=True)
class _Call:
    """One call of a consumer: the extremes of each channel that it reads, and what `Reading` holds of it.

    Attributes:
        loudest: the largest weight, at least 1: what is rounding to a quiet consumer may not be to a loud one.
    """

    site: ReadSite
    least: Tensor
    largest: Tensor
    loudest: float
    groups: int
    input_first: bool
    bias: str | None
    borders: bool

    def constants(self) -> Tensor:
        """As in `Reading`, for all channels in a line."""
        middle = (self.least + self.largest) / 2
        value = middle.masked_fill(middle.abs() * self.loudest <= ROUNDING, 0)
        same = _close(self.least * self.loudest, self.largest * self.loudest)
        return torch.where(same, value, torch.inf).masked_fill(middle.isnan(), torch.nan)


def _has_borders(names: Sequence[str], given: Mapping[str, Any], weight: Tensor) -> bool:
    padding = given.get("padding", 0)
    if names is _CONVOLUTION:
        if isinstance(padding, str):
            return padding == "same" and weight[0, 0].numel() > 1
        return bool(_largest(padding))
    if names is _TRANSPOSED:
        moved = _largest(given.get("stride", 1)) > 1 or _largest(given.get("output_padding", 0)) > 0
        return moved or _largest(padding) > 0 or weight[0, 0].numel() > 1
    return False


def _largest(given: int | Sequence[int]) -> int:
    return given if isinstance(given, int) else max(given)


def _close(first: Tensor, second: Tensor) -> Tensor:
    """Whether numbers are equal up to rounding; infinite ones and NaN never are."""
    scale = torch.maximum(first.abs(), second.abs()).clamp_min(1)
    return scale.isfinite() & ((first - second).abs() <= ROUNDING * scale)
