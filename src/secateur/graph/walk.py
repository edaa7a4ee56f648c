"""One walk over the captured operators: each is handed to the rule that knows it, or pins what it touches."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx

from secateur.graph.labels import Channels, Labels, LabelSpace, ParameterValue, Value
from secateur.graph.records import Layer, Role

Rule = Callable[["Call"], Value]


class Call:
    """One operator call, as a rule sees it: arguments by their schema names, labels instead of numbers."""

    def __init__(self, walk: "Walk", node: fx.Node) -> None:
        self._walk = walk
        self._node = node
        self.space = walk.space
        self.operator = operator_name(node)
        self.module = _module_path(node)
        self._arguments = _bind(node)

    def __contains__(self, name: str) -> bool:
        return self._arguments.get(name) is not None

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

    def out_shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return _shape(self._node)

    def channels(self, name: str, dim: int) -> Labels:
        """The labels of dimension ``dim`` of a tensor argument; fixed ones where it carries none there."""
        value = self.value(name)
        if isinstance(value, Channels) and value.dim == dim:
            return value.labels
        self.pin(value, f"{self.operator} mixes channels with other dimensions")
        return self.fixed(self.shape(name)[dim], f"{self.operator} reads a tensor whose channels are not tracked")

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

    def multiplies(self, weight: ParameterValue, positions: int) -> None:
        """Count a layer that uses each element of ``weight`` at ``positions`` places of the whole batch."""
        self._walk.layers.append(Layer(weight.name, positions))

    def unknown(self) -> Value:
        """Pin everything this call touches: nothing is ever guessed to be elementwise."""
        reason = f"operator {self.operator} has no rule here"
        for argument in self._arguments.values():
            for item in argument if isinstance(argument, list | tuple) else (argument,):
                value = self._walk.value(item)
                self.pin(value, reason)
                if isinstance(value, ParameterValue):
                    for dim in range(len(value.shape)):
                        role = Role.WRITE if dim == 0 and prod(value.shape[1:]) > 1 else Role.TIED
                        self.space.pin(self.slot(value, dim, role), self.module, reason)
        return None


@dataclass
class Walk:
    """The state of a walk over one captured graph; several walks share one `LabelSpace`."""

    space: LabelSpace
    rules: Mapping[str, Rule]
    names: Mapping[str, ParameterValue]  # placeholder -> parameter or buffer
    inputs: frozenset[str]  # placeholders of what the user passes
    layers: list[Layer]

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
                if isinstance(several, list | tuple) and isinstance(index, int):
                    self._values[node] = several[index]
            elif node.op == "call_function":
                call = Call(self, node)
                rule = self.rules.get(call.operator)
                self._values[node] = rule(call) if rule else call.unknown()

    def _input(self, node: fx.Node) -> Value:
        shape = _shape(node)
        if len(shape) < 2:
            return None
        labels = self.space.fresh(shape[1])
        self.space.pin(labels, "", "network input")
        return Channels(1, labels)

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


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def _all_labels(value: Value) -> Iterator[Labels]:
    if isinstance(value, Channels):
        yield value.labels
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _all_labels(item)
