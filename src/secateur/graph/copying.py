"""A copy of a network that is safe to look at: tracing and removal never touch the user's own."""

import copy
import types
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

_ATOMIC = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, torch.dtype, torch.device)


def safe_copy(model: nn.Module, *, instead: Mapping[int, Tensor] | None = None) -> nn.Module:
    """Return a deep copy of ``model``, gradients included, that shares nothing with it.

    Non-leaf tensors that a forward pass left behind, which ``copy.deepcopy`` refuses, become detached clones.
    Containers and parameters that several modules share stay shared among the copies.

    Args:
        model: the network; untouched.
        instead: what the copy holds in the place of a parameter or buffer, by the ``id`` of that one, which then is
            not copied, nor is its gradient.
    """
    given = dict(instead or {})
    memo: dict[int, object] = {
        id(tensor): tensor.detach().clone() for tensor in _stored_tensors(model) if not tensor.is_leaf
    }
    twin = copy.deepcopy(model, memo | given)
    for original, copied in zip(model.parameters(), twin.parameters(), strict=True):
        if id(original) not in given and original.grad is not None and copied.grad is None:
            copied.grad = original.grad.detach().clone()
    return twin


def bare_copy(model: nn.Module) -> nn.Module:
    """A `safe_copy` of ``model`` without gradients."""
    copies = {
        id(parameter): nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return safe_copy(model, instead=copies)


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without gradients that shares the values of its parameters, and nothing else.

    For those who never write to parameters: they are new objects with version counters of their own, so that nobody
    would notice.
    """
    shared = {
        id(parameter): nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
        if not parameter.is_inference()
    }
    return safe_copy(model, instead=shared)


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
