"""One forward pass as a graph of ATen calls: by `torch.export`, or by recording the calls of a real run."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import traceback as fx_traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from secateur.errors import GraphError
from secateur.graph.copying import safe_copy, sharing_copy
from secateur.graph.tensors import named_tensors

_PATHS = 8  # runs with a changed answer: each costs a forward pass
_NO_VARIANCE = "Expected more than 1 value per channel"  # how torch's batch norms begin to say so

Answer = bool | int | float
Change = tuple[int, Answer]  # the number of a question, and another answer to it


@dataclass(frozen=True)
class Capture:
    """One forward pass.

    Attributes:
        graph: ATen calls, composite ones such as ``conv2d`` whole, with the shapes of results in ``meta["val"]`` and
            the modules that made the call in ``meta["nn_module_stack"]``.
        tensors: placeholder -> a qualified name of the parameter or buffer that it stands for.
        inputs: the placeholders of what the user passes.
    """

    graph: fx.Graph
    tensors: Mapping[str, str]
    inputs: frozenset[str]


def capture(model: nn.Module, arguments: Sequence[Tensor], *, training: bool) -> tuple[Capture, ...]:
    """Capture the forward pass of a safe copy of ``model`` in the given mode.

    ``torch.export`` goes first. Where it fails, at control flow that depends on values, at wrappers or at effects in
    Python, the calls of a real run are recorded instead, which costs a forward pass without gradients. If the network
    asks for values on the way, each of the first answers is also replaced once, so that other branches are seen too;
    answers that constant tensors give, such as the codes of an architecture, are settings and stay.
    A batch that batch norms refuse in train mode, as one sample of one position has no variance, is doubled.

    Returns:
        The path that ``arguments`` take, then at most `_PATHS` others.

    Raises:
        GraphError: neither works; the message carries both reasons.
    """
    try:
        return _capture(model, arguments, training)
    except GraphError as error:
        if not training or _NO_VARIANCE not in str(error):
            raise
    return _capture(model, [torch.cat([argument, argument]) for argument in arguments], training)


def _capture(model: nn.Module, arguments: Sequence[Tensor], training: bool) -> tuple[Capture, ...]:
    try:
        return (_export(sharing_copy(model).train(training), arguments),)  # which computes no values
    except Exception as error:  # export raises many kinds, all of which mean the same here
        why_not_exported = _first_line(error)
    try:
        own, answers = _record(safe_copy(model).train(training), arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a forward pass may raise anything
        shapes = ", ".join(str(tuple(argument.shape)) for argument in arguments)
        raise GraphError(
            f"{type(model).__name__} cannot be traced with an example of shape {shapes}: running it fails "
            f"({_first_line(error)}), and so does torch.export ({why_not_exported}). "
            f"Check that model(example) runs in train and eval mode."
        ) from error
    changes = [change for change in _changes(answers) if change[0] not in _settled(own.graph, len(answers))]
    others = [path for change in changes[:_PATHS] for path in _try_to_record(model, arguments, training, change)]
    return (own, *others)


def _export(twin: nn.Module, arguments: Sequence[Tensor]) -> Capture:
    with quiet_export(), torch.enable_grad():
        program = torch.export.export(twin, tuple(arguments), strict=False)
    signature = program.graph_signature
    return Capture(
        program.graph,
        {**signature.inputs_to_parameters, **signature.inputs_to_buffers},
        frozenset(name for name in signature.user_inputs if isinstance(name, str)),
    )


def _record(twin: nn.Module, arguments: Sequence[Tensor], change: Change | None = None) -> tuple[Capture, list[Answer]]:
    """Run ``twin`` for real, and keep what it calls before autograd takes composite calls apart.

    Parameters and buffers are handed to the recorder as inputs, by identity, so that it knows them again.
    """
    named = named_tensors(twin)
    questions = _Questions(change)

    def forward(_: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        with _module_stack(twin), questions:
            output = twin(*inputs)
            if found := [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]:
                return found
            raise TypeError(
                f"it returns {type(output).__name__}, in which no tensor is found; return a tensor, list, tuple or "
                f"dict, or register the class with torch.utils._pytree.register_dataclass"
            )

    recorder = make_fx(forward, tracing_mode="real", pre_dispatch=True, _error_on_data_dependent_ops=False)
    with quiet_export(), torch.no_grad(), fx_traceback.preserve_node_meta():
        graph = recorder(list(named.values()), [argument.as_subclass(Tensor) for argument in arguments]).graph
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    held = dict(zip(placeholders, named, strict=False))
    return Capture(graph, held, frozenset(placeholders) - held.keys()), questions.answers


def _try_to_record(
    model: nn.Module, arguments: Sequence[Tensor], training: bool, change: Change
) -> tuple[Capture, ...]:
    """The path that the network takes if one answer is another; none where it does not get through."""
    try:
        return (_record(safe_copy(model).train(training), arguments, change)[0],)
    except Exception:  # an impossible answer may make a network raise anything
        return ()


class _Questions(TorchFunctionMode):
    """Notes what a network asks of tensors (``if x > 0``, ``x.item()``), and changes one of the answers."""

    _asking = frozenset({Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.item})

    def __init__(self, change: Change | None) -> None:
        super().__init__()
        self.answers: list[Answer] = []
        self._change = change

    def __torch_function__(
        self,
        func: Callable[..., Any],  # any torch function
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self._asking:
            self.answers.append(result)
            if self._change is not None and self._change[0] == len(self.answers) - 1:
                return self._change[1]
        return result


def _changes(answers: Sequence[Answer]) -> list[Change]:
    """Other answers to each question: the opposite of a bool, a number below and one above all plausible thresholds."""
    found: list[Change] = []
    for place, answer in enumerate(answers):
        if isinstance(answer, bool):
            found.append((place, not answer))
        else:
            found += [(place, -abs(answer) - 1), (place, abs(answer) + 1)]
    return found


def _settled(graph: fx.Graph, questions: int) -> set[int]:
    """The numbers of the questions whose answers come from constants alone, which no operator changes in place."""
    asked = [node for node in graph.nodes if node.target is torch.ops.aten.item.default]
    if len(asked) != questions:  # asked in another way, so that they cannot be told apart
        return set()
    changed = {node.args[0].target for node in graph.nodes if _changes_its_input(node)}
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.target not in changed if node.op == "get_attr" else sources and constant.issuperset(sources):
            constant.add(node)
    return {number for number, node in enumerate(asked) if node in constant}


def _changes_its_input(node: fx.Node) -> bool:
    mutable = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return mutable and bool(node.args) and isinstance(node.args[0], fx.Node)


@contextmanager
def _module_stack(root: nn.Module) -> Iterator[None]:
    """Write on every recorded call which modules it was made in, as ``torch.export`` does."""
    paths = {id(module): name for name, module in root.named_modules()}
    meta = fx_traceback.current_meta
    stacks: list[dict[str, tuple[str, type]]] = [{}]

    def enter(module: nn.Module, _: Any) -> None:  # whatever a module is called with
        stack = dict(stacks[-1])
        if id(module) in paths:
            stack[str(id(module))] = (paths[id(module)], type(module))
        stacks.append(stack)
        meta["nn_module_stack"] = stack

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        stacks.pop()
        meta["nn_module_stack"] = stacks[-1]

    hooks = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        meta.pop("nn_module_stack", None)


@contextmanager
def quiet_export() -> Iterator[None]:
    """Silence warnings, logs and what ``torch.export`` prints where it fails; its exception says enough."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
