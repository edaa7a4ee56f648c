"""One walk over the captured operators: each is handed to the rule that knows it, or pins what it touches."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from secateur.graph.labels import Channels, Labels, LabelSpace, ParameterValue, Value, along
from secateur.graph.records import Layer, Role

Rule = Callable[["Call"], Value]


class Call:
    """One operator call, as a rule sees it: arguments by their schema names, labels instead of numbers."""

    def __init__(self, walk: "Walk", node: fx.Node) -> None:
        self._walk = walk
        self._node = node
        self.space = walk.space
        self.operator = operator_name(node)
        self.in_place = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name.endswith("_")
        self.module = walk.first_names.get(path := _module_path(node), path)
        self._arguments = _bind(node)

    def __contains__(self, name: str) -> bool:
        return self._arguments.get(name) is not None

    def has(self, name: str) -> bool:
        """Whether the operator has an argument of that name."""
        return name in self._arguments

    def is_mask(self, item: object) -> bool:
        """Whether a tensor argument is of truth values, which count where they select."""
        value = item.meta.get("val") if isinstance(item, fx.Node) else None
        return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)

    def constant(self, name: str) -> Any:  # an operator's literal: int, float, bool, list
        """The literal given for argument ``name``, or its default."""
        return self._arguments[name]

    def value(self, name: str) -> Value:
        """What is known of argument ``name``; None also for literals."""
        return self._walk.value(self._arguments.get(name))

    def values(self, name: str) -> list[Value]:
        """The same for an argument that is a list of tensors."""
        return [self._walk.value(item) for item in self._arguments[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor given for argument ``name``; () for a literal."""
        return _shape(self._arguments[name])

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """The shapes of a list of tensors."""
        return [_shape(item) for item in self._arguments[name]]

    def tensors(self) -> list[str]:
        """The names of the arguments that are one tensor each, in the order of the schema."""
        return [name for name, item in self._arguments.items() if _is_tensor(item)]

    def out_shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return _shape(self._node)

    def out_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of several results; empty where there is one."""
        value = self._node.meta.get("val")
        return [tuple(int(size) for size in item.shape) for item in value] if isinstance(value, list | tuple) else []

    def labels(self, name: str) -> Labels | None:
        """The labels of a tensor argument, a parameter among them; None where it carries none."""
        return self.labels_of(self.value(name))

    def labels_of(self, value: Value) -> Labels | None:
        """The labels of a value: those of a parameter vary along its last dimension of several indices."""
        if isinstance(value, ParameterValue):
            wide = [dim for dim, size in enumerate(value.shape) if size > 1]
            if len(wide) > 1 and len(value.shape) > 3:  # a kernel has two kinds of channels
                self.unknown()
                return None
            dim = wide[-1] if wide else 0
            return along(self.slot(value, dim, Role.TIED), dim, len(value.shape)) if value.shape else None
        return value.labels if isinstance(value, Channels) else None

    def line(self, name: str, dim: int) -> Labels:
        """The labels along dimension ``dim`` of a tensor argument; fixed ones where it carries none there.

        Labels that vary along other dimensions too, such as those of a linear layer whose output becomes a map, leave
        together wherever they share an index along ``dim``.
        """
        labels, size = self.labels(name), self.shape(name)[dim]
        mixed = None if labels is None else self.mix(labels, (d for d in range(labels.ndim) if d != dim))
        if mixed is not None:
            return np.broadcast_to(mixed.reshape(-1), size)
        return self.fixed(size, f"{self.operator} reads a tensor whose channels are not tracked")

    def mix(self, labels: Labels, dims: Iterable[int], reason: str = "") -> Labels | None:
        """The labels left, with size 1 along ``dims``, after an operator that makes one number of all along them.

        Where labels vary along other dimensions too, such as heads, those that are mixed stand and fall together and
        the result is theirs. Else they are pinned, and the result has none.
        """
        mixed = [dim for dim in dims if labels.shape[dim] > 1]
        if not mixed:
            return labels
        if len(mixed) == sum(size > 1 for size in labels.shape):
            self.pin_labels(labels, reason or f"{self.operator} mixes all channels")
            return None
        for dim in mixed:
            first = labels.take([0], axis=dim)
            self.space.unite(np.broadcast_to(first, labels.shape), labels)
            labels = first
        return labels

    def touch(self, value: ParameterValue) -> None:
        """Record that the forward pass uses a parameter, whose channels follow nothing."""
        if value.shape:
            self.slot(value, 0, Role.TIED)

    def slot(self, value: ParameterValue, dim: int, role: Role) -> Labels:
        """The labels along one dimension of a parameter."""
        return self.space.slot(value.name, dim, role, value.shape[dim])

    def fixed(self, count: int, reason: str) -> Labels:
        """New labels that must stay."""
        labels = self.space.fresh(count)
        self.space.pin(labels, self.module, reason)
        return labels

    def pin(self, value: Value, reason: str) -> None:
        """Pin every channel in ``value``."""
        for labels in _all_labels(value):
            self.space.pin(labels, self.module, reason)

    def pin_labels(self, labels: Labels | None, reason: str) -> None:
        """Pin labels, if there are any."""
        if labels is not None:
            self.space.pin(labels, self.module, reason)

    def multiplies(self, weight: ParameterValue, positions: int) -> None:
        """Count a layer that uses each element of ``weight`` at ``positions`` places of the whole batch."""
        self._walk.layers.append(Layer(weight.name, positions))

    def multiplies_activations(self, macs: int, labels: Labels | None = None) -> None:
        """Count a product without a weight, which shrinks in proportion to ``labels``."""
        self._walk.layers.append(Product(macs, labels))

    def splits(self, labels: Labels) -> None:
        """Record that one labelled dimension was split into those of ``labels``, by this call's module."""
        self._walk.splits.append(Split(self.module, labels))

    def counts(self, attribute: str, labels: Labels) -> None:
        """Tie ``labels`` to an integer attribute of this call's module that counts them, if it has one."""
        if getattr(self._walk.modules.get(self.module), attribute, None) == len(labels):
            name = f"{self.module}.{attribute}".removeprefix(".")
            self.space.unite(labels, self.space.slot(name, 0, Role.WIDTH, len(labels)))

    def unknown(self, reason: str = "") -> Value:
        """Pin everything this call touches: nothing is ever guessed to be elementwise."""
        reason = reason or f"operator {self.operator} has no rule here"
        for argument in self._arguments.values():
            for item in argument if isinstance(argument, list | tuple) else (argument,):
                value = self._walk.value(item)
                self.pin(value, reason)
                if isinstance(value, ParameterValue):
                    for dim in range(len(value.shape)):
                        role = Role.WRITE if dim == 0 and prod(value.shape[1:]) > 1 else Role.TIED
                        self.space.pin(self.slot(value, dim, role), self.module, reason)
        return None


@dataclass(frozen=True)
class Split:
    """A labelled dimension that became several: the labels have its new dimensions, and only those."""

    module: str
    labels: Labels


@dataclass(frozen=True)
class Product:
    """A product of two activations of the whole batch, and the labels in proportion to which it shrinks."""

    macs: int
    labels: Labels | None


@dataclass
class Walk:
    """The state of a walk over one captured graph; several walks share one `LabelSpace`."""

    space: LabelSpace
    rules: Mapping[str, Rule]
    names: Mapping[str, ParameterValue]  # placeholder -> parameter or buffer
    inputs: frozenset[str]  # placeholders of what the user passes
    layers: list["Layer | Product"]
    splits: list["Split"]
    modules: Mapping[str, nn.Module]  # by their first names
    first_names: Mapping[str, str]  # of all modules, by any of their names

    def __post_init__(self) -> None:
        self._values: dict[fx.Node, Value] = {}

    def value(self, item: object) -> Value:
        """What is known of a node; None for literals."""
        return self._values.get(item) if isinstance(item, fx.Node) else None

    def run(self, graph: fx.Graph) -> None:
        """Visit every node once, in the order of execution."""
        for node in graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self._input(node) if node.name in self.inputs else self.names.get(node.name)
            elif node.op == "output":
                self._leave(node)
            elif node.target is operator.getitem:
                several = self.value(node.args[0])
                index = node.args[1]
                if isinstance(several, list | tuple) and isinstance(index, int) and index < len(several):
                    self._values[node] = several[index]
            elif node.op == "call_function":
                self._values[node] = self._apply(Call(self, node))

    def _apply(self, call: Call) -> Value:
        rule = self.rules.get(call.operator)
        try:
            return rule(call) if rule else call.unknown()
        except (ValueError, LookupError, TypeError) as error:  # a form of the operator that the rule does not expect
            return call.unknown(f"the rule of operator {call.operator} does not fit ({error!r})")

    def _input(self, node: fx.Node) -> Value:
        shape = _shape(node)
        if len(shape) < 2:
            return None
        labels = self.space.fresh(shape[1])
        self.space.pin(labels, "", "network input")
        return Channels(along(labels, 1, len(shape)))

    def _leave(self, node: fx.Node) -> None:
        for source in node.all_input_nodes:
            for labels in _all_labels(self.value(source)):
                self.space.pin(labels, _module_path(source), "network output")


def operator_name(node: fx.Node) -> str:
    """The ATen name without overload, in-place forms under the name of the plain one."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name).removeprefix("aten::").removesuffix("_")
    return str(node.target)


def _bind(node: fx.Node) -> dict[str, Any]:
    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(index): item for index, item in enumerate(node.args)} | dict(node.kwargs)
    arguments = node.target._schema.arguments
    bound = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    bound |= {argument.name: item for argument, item in zip(arguments, node.args, strict=False)}
    return bound | dict(node.kwargs)


def _shape(item: object) -> tuple[int, ...]:
    value = item.meta.get("val") if isinstance(item, fx.Node) else None
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def _is_tensor(item: object) -> bool:
    return isinstance(item, fx.Node) and isinstance(item.meta.get("val"), torch.Tensor)


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def _all_labels(value: Value) -> Iterator[Labels]:
    if isinstance(value, Channels):
        yield value.labels
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _all_labels(item)
