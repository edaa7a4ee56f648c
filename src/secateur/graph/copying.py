"""A copy of a network that is safe to look at: tracing and removal never touch the user's own."""

import copy
import types
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_ATOMIC = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, torch.dtype, torch.device)


def safe_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of ``model``, gradients included, that shares nothing with it.

    Non-leaf tensors that a forward pass left behind, which ``copy.deepcopy`` refuses, become detached clones.
    Containers and parameters that several modules share stay shared among the copies.
    """
    memo: dict[int, object] = {
        id(tensor): tensor.detach().clone() for tensor in _stored_tensors(model) if not tensor.is_leaf
    }
    twin = copy.deepcopy(model, memo)
    for original, copied in zip(model.parameters(), twin.parameters(), strict=True):
        if original.grad is not None and copied.grad is None:
            copied.grad = original.grad.detach().clone()
    return twin


def _stored_tensors(root: object) -> Iterator[Tensor]:
    """Every tensor that can be reached from ``root`` the way ``copy.deepcopy`` reaches it."""
    seen: set[int] = set()
    pending: list[object] = [root]
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, _ATOMIC):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            pending += item
        else:
            pending += getattr(item, "__dict__", {}).values()
