"""What the input of a network cannot reach: NaN marks every element that may depend on it.

How it works: the network runs on inputs of NaN. An element that is still a number at some place has been made of
parameters alone, whatever the input. Two things need care. A weight of zero stops NaN in a product, as it stops every
finite activation. And an operator that loses NaN by itself (a comparison, ``sign``) must not: results of operators that
are not known here are NaN throughout as soon as any of their operands holds one.
So marks may be too many, never too few.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_FACTORS: Mapping[str, tuple[int, int]] = {  # the two arguments that are multiplied and summed
    "convolution": (0, 1), "mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2),
}  # fmt: skip

_CARRIES = {  # NaN goes where the numbers go, or into every number made of it; views do the same
    "cat", "stack", "_to_copy", "_unsafe_view", "_reshape_alias", "constant_pad_nd", "index_select", "repeat", "roll",
    "flip", "copy_", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "glu",
    "index", "gather",
    "sum", "mean", "amax", "amin", "var", "std",
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "native_group_norm", "native_layer_norm",
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
}  # fmt: skip

_UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}  # may hold NaN of freed tensors

_POINTWISE = {"_prelu_kernel", "hardswish", "hardswish_", "rsub"}  # beside those that torch tags as such

_SPATIAL = re.compile(r"_?(max_pool|avg_pool|adaptive_avg_pool|adaptive_max_pool|upsample\w*|\w+_pad)[123]d")


class InputDependentError(Exception):
    """A network asks Python for a number that depends on its input, such as in ``if x.max() > 0`` or ``x[x > 0]``."""


@final
class Influence(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, every element that an element of NaN may have had an influence on is NaN.

    Truth values and indices cannot be NaN; those that are made of NaN are remembered, and what is made of them is NaN.

    Raises:
        InputDependentError: a number that NaN had an influence on is asked for, or decides how large a result is.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._marked: dict[int, Tensor] = {}  # by the address of their storage, which stays theirs while they are held

    def __torch_dispatch__(
        self,
        func: Any,  # an overload of an ATen operator
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in _UNWRITTEN:
            return func(*args, **kwargs).zero_()
        reached = [tensor for tensor in _tensors((args, kwargs)) if self._depends(tensor)]
        if not reached:
            result = func(*args, **kwargs)
            return self._mark(result) if torch.Tag.nondeterministic_seeded in func.tags else result
        if torch.Tag.dynamic_output_shape in func.tags and (name != "index" or any(map(_is_truth, reached))):
            raise InputDependentError  # its shape is such a number
        if not all(_holds_nan(tensor) for tensor in reached):
            return self._mark(func(*args, **kwargs))
        if name in _FACTORS:
            return _product(func, name, args, kwargs)
        if torch.Tag.pointwise in func.tags or name in _POINTWISE:
            return self._pointwise(func, args, kwargs)
        result = func(*args, **kwargs)
        if func.is_view or name in _CARRIES or _SPATIAL.match(name):
            return self._mark(result, floating=False)
        return self._mark(result)

    def _depends(self, tensor: Tensor) -> bool:
        if _holds_nan(tensor):
            return bool(tensor.isnan().any())
        return tensor.untyped_storage().data_ptr() in self._marked

    def _mark(self, result: Any, *, floating: bool = True) -> Any:  # what operators return
        """Mark all of a result; where ``floating`` is false, only what cannot hold NaN."""
        for item in pytree.tree_leaves(result):
            if isinstance(item, bool | int | float | complex):
                raise InputDependentError
            if not isinstance(item, Tensor):
                continue
            if not _holds_nan(item):
                self._marked[item.untyped_storage().data_ptr()] = item
            elif floating:
                item.fill_(torch.nan)
        return result

    def _pointwise(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        marks = [
            tensor.isnan() for tensor in _tensors((args, kwargs)) if _holds_nan(tensor)
        ]  # before one is overwritten
        result = func(*args, **kwargs)
        self._mark(result, floating=False)
        for item in _tensors(result):
            for mark in marks:
                if _holds_nan(item):
                    item.masked_fill_(mark, torch.nan)
        return result


def _product(func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A sum of products is reached where a reached factor meets one that is not zero.

    Both sides are counted by the same product of ones and zeros; more than one half, since fast algorithms round.
    """
    first, second = (args[place] for place in _FACTORS[name])
    clean = list(args)
    for place in _FACTORS[name]:
        clean[place] = args[place].masked_fill(args[place].isnan(), 0)
    options = args[3:] if name == "convolution" else ()

    def count(one: Tensor, other: Tensor) -> Tensor:
        if name == "convolution":
            one = torch.ops.aten.convolution(one, other, None, *options)
            return one
        return one @ other

    reached = count(first.isnan().to(first), (second != 0).to(second))
    if second.isnan().any():
        reached = reached + count((first != 0).to(first), second.isnan().to(second))
    return func(*clean, **kwargs).masked_fill_(reached > 0.5, torch.nan)


def _tensors(tree: Any) -> Iterator[Tensor]:  # arguments and results of operators
    return (leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor))


def _is_truth(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8)


def _holds_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
