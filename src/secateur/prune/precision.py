"""Float64 for a network whose parameters stay as they are stored: each is widened where it is used, and let go."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from secateur.prune.slabs import convolve_in_slabs

_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv3d})
_OF_THE_OBJECT = frozenset({Tensor.__hash__, Tensor.size, Tensor.dim, Tensor.numel})  # in any precision


@dataclass(frozen=True)
class _View:
    """A view of the float64 copy of a parameter."""

    parameter: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def tensor(self) -> Tensor:
        return self.parameter.detach().double().as_strided(self.size, self.stride, self.offset)


@final
class InDoublePrecision(TorchFunctionMode):
    """While active, functions see float64 in the place of the parameters of ``model``, and convolve in slabs.

    A network runs as its float64 copy would, in the memory of one parameter at a time. Enter it before modes that
    recognise parameters by identity, which then see the stored ones.

    How it works: a function gets a float64 copy of each parameter that it is called with. Where such a copy was
    written to, or lives on in a result (a view, the parameter's ``data``), it takes the place of the stored values, so
    that what a network does to its own parameters has the effect that it has in a float64 copy. What was stored is
    never written to, even where another network shares it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._parameters = {id(parameter): parameter for parameter in model.parameters()}
        self._wide: dict[int, nn.Parameter] = {}  # during a call, whose copy lives where

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        call = convolve_in_slabs(func) if func in _CONVOLUTIONS else func
        if func in _OF_THE_OBJECT or getattr(func, "__name__", "") == "__set__":  # ``parameter.data = ...``
            return call(*args, **kwargs)
        wide = {id(p): p.detach().double() for p in _leaves((args, kwargs)) if self._is_narrow(p)}
        if not wide:
            return call(*args, **kwargs)
        args, kwargs = pytree.tree_map(lambda leaf: wide.get(id(leaf), leaf), (args, kwargs))
        self._wide = {_address(copied): self._parameters[key] for key, copied in wide.items()}
        try:
            result = call(*args, **kwargs)
        finally:
            self._wide = {}
        held = {_address(leaf) for leaf in _leaves(result)}
        for key, copied in wide.items():
            if copied._version or _address(copied) in held:
                self._parameters[key].data = copied
        return result

    def saved(self, tensor: Tensor) -> Tensor | _View:
        """What autograd keeps of a tensor: of the copy of a parameter, how to make it again."""
        parameter = self._wide.get(_address(tensor))
        if parameter is None:
            return tensor
        return _View(parameter, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _is_narrow(self, tensor: Tensor) -> bool:
        return id(tensor) in self._parameters and tensor.is_floating_point() and tensor.dtype is not torch.float64


@contextmanager
def backward_in_double(model: nn.Module) -> Iterator[None]:
    """`InDoublePrecision` for passes with gradients: autograd keeps no float64 copies of parameters either."""
    mode = InDoublePrecision(model)
    with torch.autograd.graph.saved_tensors_hooks(mode.saved, _unpacked), mode:
        yield


def _unpacked(saved: Tensor | _View) -> Tensor:
    return saved.tensor() if isinstance(saved, _View) else saved


def _leaves(value: Any) -> Iterator[Tensor]:  # whatever a torch function takes or returns
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
