"""Capture a network and read off which channels stand and fall together."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from secateur.errors import GraphError
from secateur.graph.capture import Capture, capture
from secateur.graph.group_norm import GroupNormMode
from secateur.graph.groups import form_groups
from secateur.graph.labels import LabelSpace, ParameterValue
from secateur.graph.layers import count_layers
from secateur.graph.memory import release_freed_memory
from secateur.graph.patch import minimal_patch
from secateur.graph.records import ChannelGraph, InputSpec, Layer, Pin
from secateur.graph.rules import GROUP_NORMS, RULES
from secateur.graph.splits import settle_splits
from secateur.graph.walk import Product, Rule, Split, Walk


def trace_channels(
    model: nn.Module, example: Tensor | Sequence[Tensor], *, group_norm: GroupNormMode = GroupNormMode.WHOLE
) -> ChannelGraph:
    """Find the groups of channels of ``model`` that can be removed, without touching it.

    Train- and eval-mode forwards are captured and united, since dead heads, drop-out and deep supervision differ.

    Args:
        model: any network, in either mode, on any device.
        example: one input ``(N, C, *space)`` or several, of the size for which MACs are to be counted.
        group_norm: see `secateur.trace`.

    Returns:
        The graph as plain data. Groups are not yet tried; `secateur.trace` does that as well.

    Raises:
        GraphError: the network cannot be captured, it has no parameters, the example is no tensor, or holds nothing.
    """
    started = time.perf_counter()
    if group_norm not in GROUP_NORMS:
        raise GraphError(f"group_norm is {group_norm!r}; give one of {', '.join(map(str, GROUP_NORMS))}.")
    rules = {**RULES, "group_norm": GROUP_NORMS[group_norm]}
    arguments = _arguments(example)
    names = _first_names(model)
    if not names:
        raise GraphError(f"{type(model).__name__} has no parameters, so there is nothing to prune.")
    space = LabelSpace()
    splits: list[Split] = []
    calls: list[Layer | Product] = []
    for training in (True, False):
        calls = []
        own, *others = capture(model, arguments, training=training)
        _walk(own, model, rules, names, space, calls, splits)
        for other in others:
            _walk(other, model, rules, names, space, [], splits)
    settle_splits(space, splits, dict(model.named_modules()))
    groups, pinned = form_groups(space)
    parameters = frozenset(names[name].name for name, _ in model.named_parameters())
    reached = {tensor for tensor, *_ in space.slots()}
    inputs = tuple(InputSpec(tuple(argument.shape), argument.dtype) for argument in arguments)
    batch = arguments[0].shape[0]
    patch = minimal_patch(model, inputs)
    release_freed_memory()
    return ChannelGraph(
        groups=groups,
        pinned=(*pinned, *_unreached(names, parameters, reached)),
        layers=count_layers(space, calls, batch),
        shapes={value.name: value.shape for value in names.values()},
        parameters=parameters,
        inputs=inputs,
        patch=patch,
        seconds=time.perf_counter() - started,
    )


def _arguments(example: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    given: list[Any] = list(example) if isinstance(example, list | tuple) else [example]  # whatever a user passes
    if not given or any(not isinstance(item, Tensor) or item.numel() == 0 for item in given):
        found = ", ".join(f"{type(item).__name__} of shape {tuple(getattr(item, 'shape', ()))}" for item in given)
        raise GraphError(
            f"the example is {found or 'empty'}; give a tensor (N, C, *space) of at least one sample, or several."
        )
    return tuple(tensor.detach().clone() for tensor in given)


def _walk(
    captured: Capture,
    model: nn.Module,
    rules: Mapping[str, Rule],
    names: dict[str, ParameterValue],
    space: LabelSpace,
    calls: list[Layer | Product],
    splits: list[Split],
) -> None:
    placeholders = {node: names[name] for node, name in captured.tensors.items() if name in names}
    first = {id(module): name for name, module in model.named_modules()}
    aliases = {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}
    walk = Walk(space, rules, placeholders, captured.inputs, calls, splits, dict(model.named_modules()), aliases)
    walk.run(captured.graph)


def _first_names(model: nn.Module) -> dict[str, ParameterValue]:
    """Every name of every parameter and buffer, aliases under the first name of what they share."""
    first: dict[int, str] = {}
    values: dict[str, ParameterValue] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            values[name] = ParameterValue(first.setdefault(id(tensor), name), tuple(tensor.shape))
    return values


def _unreached(names: dict[str, ParameterValue], parameters: frozenset[str], reached: set[str]) -> list[Pin]:
    """Weights that neither mode's forward uses: they stay as they are."""
    return [
        Pin(name.rpartition(".")[0] or name, "not reached by the forward pass in either mode", value.shape[0])
        for name, value in names.items()
        if name == value.name and name in parameters and name not in reached and len(value.shape) > 1
    ]
