"""Capture a network with `torch.export` and read off which channels stand and fall together."""

import time
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from secateur.errors import GraphError
from secateur.graph.copying import safe_copy
from secateur.graph.groups import form_groups
from secateur.graph.labels import LabelSpace, ParameterValue
from secateur.graph.patch import minimal_patch
from secateur.graph.records import ChannelGraph, InputSpec, Layer, Pin
from secateur.graph.rules import RULES
from secateur.graph.walk import Walk


def trace_channels(model: nn.Module, example: Tensor | Sequence[Tensor]) -> ChannelGraph:
    """Find the groups of channels of ``model`` that can be removed, without touching it.

    Train- and eval-mode forwards are captured and united, since dead heads, drop-out and deep supervision differ.

    Args:
        model: any network, in either mode, on any device.
        example: one input ``(N, C, *space)`` or several, of the size for which MACs are to be counted.

    Returns:
        The graph as plain data. Groups are not yet tried; `secateur.trace` does that as well.

    Raises:
        GraphError: ``torch.export`` cannot capture the network, or it has no parameters.
    """
    started = time.perf_counter()
    arguments = tuple(tensor.detach().clone() for tensor in ([example] if isinstance(example, Tensor) else example))
    names = _first_names(model)
    if not names:
        raise GraphError(f"{type(model).__name__} has no parameters, so there is nothing to prune.")
    space = LabelSpace()
    layers: list[Layer] = []
    for training in (True, False):
        layers = []
        _walk(capture(model, arguments, training=training), model, names, space, layers)
    groups, pinned = form_groups(space)
    reached = {tensor for tensor, *_ in space.slots()}
    inputs = tuple(InputSpec(tuple(argument.shape), argument.dtype) for argument in arguments)
    batch = arguments[0].shape[0]
    return ChannelGraph(
        groups=groups,
        pinned=(*pinned, *_unreached(names, reached)),
        layers=tuple(Layer(layer.weight, layer.positions // batch) for layer in layers),
        shapes={value.name: value.shape for value in names.values()},
        parameters=frozenset(names[name].name for name, _ in model.named_parameters()),
        inputs=inputs,
        patch=minimal_patch(model, inputs),
        seconds=time.perf_counter() - started,
    )


def capture(model: nn.Module, arguments: Sequence[Tensor], *, training: bool) -> ExportedProgram:
    """Export a safe copy of ``model`` in the given mode: ATen operators with the module behind each.

    Raises:
        GraphError: the network cannot be captured; the message carries torch's reason.
    """
    twin = safe_copy(model).train(training)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(twin, tuple(arguments), strict=False)
    except Exception as error:  # export raises many kinds, all of which mean the same here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        shapes = ", ".join(str(tuple(argument.shape)) for argument in arguments)
        raise GraphError(
            f"{type(model).__name__} cannot be traced with an example of shape {shapes}: {reason}. "
            f"Check that model(example) runs in train and eval mode."
        ) from error


def _walk(
    program: ExportedProgram,
    model: nn.Module,
    names: dict[str, ParameterValue],
    space: LabelSpace,
    layers: list[Layer],
) -> None:
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    placeholders = {placeholder: names[name] for placeholder, name in held.items() if name in names}
    inputs = frozenset(name for name in signature.user_inputs if isinstance(name, str))
    Walk(space, RULES, placeholders, inputs, layers).run(program.graph)


def _first_names(model: nn.Module) -> dict[str, ParameterValue]:
    """Every name of every parameter and buffer, aliases under the first name of what they share."""
    first: dict[int, str] = {}
    values: dict[str, ParameterValue] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            values[name] = ParameterValue(first.setdefault(id(tensor), name), tuple(tensor.shape))
    return values


def _unreached(names: dict[str, ParameterValue], reached: set[str]) -> list[Pin]:
    """Weights that neither mode's forward uses: they stay as they are."""
    return [
        Pin(name.rpartition(".")[0], "not reached by the forward pass in either mode", value.shape[0])
        for name, value in names.items()
        if name == value.name and name not in reached and len(value.shape) > 1
    ]
