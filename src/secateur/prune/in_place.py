"""Removal in the middle of training: network, optimizer state and averaged copies shrink where they are, or not at all.

Parameters stay the objects that they were and only get smaller values, so that whoever holds them (optimizers,
schedulers, hooks, a caller's list) needs no word of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from secateur.errors import InputError, PlanMismatchError
from secateur.graph.copying import safe_copy
from secateur.graph.records import ChannelGraph, Kept, removed_positions
from secateur.prune.plan import PruningPlan, check_plan
from secateur.prune.processes import in_every_process
from secateur.prune.proof import prove
from secateur.prune.surgery import check_finite, cut_
from secateur.prune.wrappers import shapes_of, unwrapped

_Removed = Mapping[tuple[str, int], set[int]]  # the positions that leave, per tensor and dimension
_State = tuple[str, nn.Parameter, dict[str, Any]]  # name, parameter, what an optimizer keeps of it: tensors, numbers


@torch.inference_mode(False)
def remove_(
    model: nn.Module,
    graph: ChannelGraph,
    plan: PruningPlan,
    *,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    ema: nn.Module | Sequence[nn.Module] | None = None,
) -> ChannelGraph:
    """Remove in place, between two training steps, what `remove` leaves out of its copy: all of it, or nothing.

    The removal is proved first, on copies, as `remove` does; forward hooks run there too. If anything fails, then
    or later, network, optimizer states and averages are what they were. Training goes on as if what the removed
    units feed had read zeros from here on, where the optimizer treats every element by itself (`Muon` does not).

    The objects stay: modules, parameters with their hooks and gradients, optimizers with their parameter groups,
    schedulers, gradient scalers. Two things do not outlive a removal: a loss computed before it, which cannot be
    propagated back any more, and hooks on a parameter's accumulation node (those on the parameter itself stay).

    Args:
        model: the network that ``graph`` belongs to, or a wrapper around it, such as `DistributedDataParallel`,
            whose reducer is rebuilt. Then every process has to call this, with the wrapper and an equal plan.
        graph: its groups.
        plan: what stays. An empty plan changes nothing.
        optimizer: whose state shrinks with the parameters; one or several.
        ema: averaged copies of the network, such as `torch.optim.swa_utils.AveragedModel`; one or several.

    Returns:
        The graph of the smaller network, for the next plan.

    Raises:
        PlanMismatchError: the plan or the graph belongs to another network, or the processes' plans differ.
        InputError: weights that are not finite; an optimizer with none of the network's parameters, or with state
            that does not have their shape (`LBFGS`, `Adafactor`); an average of another structure; a
            `DistributedDataParallel` that cannot be rebuilt.
        ProofError: the smaller network differs from the masked one.
    """
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer or ())
    averages = [ema] if isinstance(ema, nn.Module) else list(ema or ())
    wrappers = [m for root in (model, *averages) for m in root.modules() if isinstance(m, DistributedDataParallel)]

    def rehearse() -> Kept:
        check_plan(graph, plan)
        network = _networks(model, averages, graph)[0]
        _check_optimizers(optimizers, network)
        _check_wrappers(wrappers)
        if removed_positions(graph, plan.kept):
            check_finite(network)
            small = safe_copy(network)
            cut_(small, graph, plan.kept)
            prove(network, small, graph, plan.kept, cut_).require()
        return plan.kept

    _check_agreement(in_every_process(rehearse) if wrappers else [rehearse()])
    removed = removed_positions(graph, plan.kept)
    if not removed:
        return graph
    networks = _networks(model, averages, graph)
    states = _states(optimizers, networks[0])
    with _all_or_nothing(networks, states, wrappers):
        for network in networks:
            _cut_in_place_(network, graph, plan.kept)
        for name, parameter, state in states:
            for key, value in state.items():
                if isinstance(value, Tensor) and value.ndim > 0:
                    state[key] = _select(value, name, removed, like=parameter)
        for wrapper in wrappers:
            _rebuild_reducer_(wrapper)
    return graph.keep(plan.kept)


def _networks(model: nn.Module, averages: Sequence[nn.Module], graph: ChannelGraph) -> list[nn.Module]:
    """The network and its averages, out of their wrappers; they share no tensor."""
    found: list[nn.Module] = []
    held: set[int] = set()
    for given in (model, *averages):
        network = unwrapped(given, graph.shapes)
        shapes = shapes_of(network)
        wrong = next((name for name, shape in graph.shapes.items() if shapes.get(name) != shape), None)
        if wrong is not None:
            has = f"{wrong!r} of shape {graph.shapes[wrong]}"
            got = shapes.get(wrong, "no such tensor")
            if given is model:
                raise PlanMismatchError(
                    f"the graph has {has}, the network has {got}; trace this network and plan with its own graph."
                )
            raise InputError(
                f"the network has {has}, its average {type(network).__name__} has {got}; give an average of this "
                f"network, cut by the same plans as the network so far."
            )
        own = {id(tensor) for tensor in [*network.parameters(), *network.buffers()]}
        if held & own:
            raise InputError(
                f"{type(network).__name__} is given twice, or shares tensors with the network or another average; "
                f"give each average once, and as a copy."
            )
        held |= own
        found.append(network)
    return found


def _check_optimizers(optimizers: Sequence[Optimizer], network: nn.Module) -> None:
    own = {id(parameter) for parameter in network.parameters()}
    for optimizer in optimizers:
        name = type(getattr(optimizer, "optimizer", optimizer)).__name__  # Accelerate's wrapper holds the real one
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if own.isdisjoint(map(id, held)):
            raise InputError(
                f"{name} holds {len(held)} parameters, none of them of this network, which has {len(own)}; "
                f"give the optimizer that trains it."
            )
        for parameter in held:
            for key, value in optimizer.state.get(parameter, {}).items():
                shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
                if isinstance(value, Tensor) and shapes[0] in ((), tuple(parameter.shape)):
                    continue
                if shapes:
                    raise InputError(
                        f"{name} keeps {key!r} of shape {shapes[0]} for a parameter of shape "
                        f"{tuple(parameter.shape)}, which cannot be cut by channel; use an optimizer whose state has "
                        f"the shape of its parameter, such as SGD or AdamW, or make a new one after `remove`."
                    )


def _check_wrappers(wrappers: Sequence[DistributedDataParallel]) -> None:
    for wrapper in wrappers:
        try:
            wrapper.__getstate__()  # type: ignore[no-untyped-call]
            reason = "a communication hook" if wrapper._comm_hooks else ""
            reason = "a precision of its own" if wrapper.mixed_precision is not None else reason
        except RuntimeError:
            reason = "a process group other than the default one"
        if reason:
            raise InputError(
                f"this DistributedDataParallel has {reason}, with which it cannot be rebuilt around a smaller network; "
                f"call `remove_` with the module inside and wrap that again."
            )


def _check_agreement(kept: Sequence[Kept]) -> None:
    for rank, other in enumerate(kept):
        if other != kept[0]:
            raise PlanMismatchError(
                f"process {rank} of {len(kept)} removes other channels than process 0; "
                f"score in every process, or send one process's plan to the others."
            )


def _states(optimizers: Sequence[Optimizer], network: nn.Module) -> list[_State]:
    """What the optimizers keep of each parameter, by the parameter's first name."""
    return [
        (name, parameter, optimizer.state[parameter])
        for name, parameter in network.named_parameters()
        for optimizer in optimizers
        if parameter in optimizer.state
    ]


def _select(value: Tensor, name: str, removed: _Removed, *, like: Tensor) -> Tensor:
    """The entries of ``value`` that stay when its parameter ``name`` is cut, in the memory format of ``like``."""
    for (tensor, dim), positions in removed.items():
        if tensor == name:
            keep = [position for position in range(value.shape[dim]) if position not in positions]
            value = value.index_select(dim, torch.tensor(keep, device=value.device))
    assert value.shape == like.shape, f"{name}: state of shape {value.shape} for a parameter of shape {like.shape}"
    return torch.empty_like(like, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _cut_in_place_(network: nn.Module, graph: ChannelGraph, kept: Kept) -> None:
    """Cut ``network``; its parameters stay the same objects, under every alias."""
    before = dict(network.named_parameters())
    cut_(network, graph, kept)
    after = dict(network.named_parameters())
    originals = {id(after[name]): parameter for name, parameter in before.items() if after[name] is not parameter}
    for name, parameter in before.items():
        if after[name] is not parameter:
            _put_(parameter, after[name].data, after[name].grad)
    for module in network.modules():
        for name, held in module._parameters.items():
            module._parameters[name] = originals.get(id(held), held)


def _put_(parameter: nn.Parameter, values: Tensor, gradient: Tensor | None) -> None:
    """Give ``parameter`` other values and another gradient, of any one shape.

    Its node in the graph of the last loss remembers the old shape and would refuse the next gradient. A change of
    type, here of nothing, makes autograd forget that node; a change of shape alone does not.
    """
    parameter.grad = None
    other = torch.float32 if parameter.dtype is torch.float16 else torch.float16
    parameter.data = torch.empty(0, dtype=other, device=parameter.device)
    parameter.data = values
    parameter.grad = gradient


def _rebuild_reducer_(wrapper: DistributedDataParallel) -> None:
    """Let it look at its parameters again, by the way that it takes when it is unpickled."""
    wrapper.__setstate__(wrapper.__getstate__())  # type: ignore[no-untyped-call]


@contextmanager
def _all_or_nothing(
    networks: Sequence[nn.Module], states: Sequence[_State], wrappers: Sequence[DistributedDataParallel]
) -> Iterator[None]:
    """On any exception, an interrupt included, put everything back: attributes, tensors, gradients and states."""
    modules = [
        (holder, dict(holder))
        for network in networks
        for module in network.modules()
        for holder in (module._parameters, module._buffers, module.__dict__)
    ]
    parameters = [(p, p.data, p.grad) for network in networks for p in network.parameters()]
    held = [(state, dict(state)) for _, _, state in states]
    try:
        yield
    except BaseException:
        for parameter, values, gradient in parameters:
            _put_(parameter, values, gradient)
        for holder, content in [*modules, *held]:
            holder.clear()
            holder.update(content)
        for wrapper in wrappers:
            _rebuild_reducer_(wrapper)
        raise
