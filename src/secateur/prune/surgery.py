"""Physically removing what a plan says: parameters, buffers, gradients and the widths that modules remember."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import PlanMismatchError
from secateur.graph.copying import safe_copy
from secateur.graph.records import ChannelGraph, Kept, Role, removed_positions
from secateur.prune.plan import PruningPlan, check_plan
from secateur.prune.proof import Proof, prove


def remove(model: nn.Module, graph: ChannelGraph, plan: PruningPlan) -> nn.Module:
    """Return a smaller network without the units that ``plan`` drops; ``model`` is untouched.

    The result is proved: with the dropped units read as zero, ``model`` gives the same output, in eval and train
    mode, in float64, with its real weights and with random ones. See `remove_with_proof` for the record of that.

    Args:
        model: the network that ``graph`` was traced from, in either mode, on any device.
        graph: its groups.
        plan: what stays. An empty plan gives an identical copy.

    Raises:
        PlanMismatchError: the plan or the graph belongs to another network.
        ProofError: the smaller network differs from the masked one; nothing is handed back.
    """
    return remove_with_proof(model, graph, plan)[0]


@torch.inference_mode(False)
def remove_with_proof(model: nn.Module, graph: ChannelGraph, plan: PruningPlan) -> tuple[nn.Module, Proof]:
    """The same as `remove`, with the record of its proof."""
    check_plan(graph, plan)
    _check_model(model, graph)
    small = safe_copy(model)
    cut_(small, graph, plan.kept)
    proof = prove(model, small, graph, plan.kept, cut_)
    return small, proof.require()


def cut_(model: nn.Module, graph: ChannelGraph, kept: Kept) -> None:
    """Cut ``model`` in place, without proof: every alias of every tensor, and the modules' own widths."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    smaller: dict[str, Tensor] = {}
    counted = {piece.tensor for group in graph.groups for piece in group.slices if piece.role is Role.WIDTH}
    for (name, dim), positions in removed_positions(graph, kept).items():
        if name in counted:
            _count_fewer_(model, name, len(positions))
        else:
            smaller[name] = _drop(smaller.get(name, tensors[name]), dim, positions)
    replace_tensors_(model, smaller, grouped={read.tensor for group in graph.groups for read in group.reads()})


def replace_tensors_(model: nn.Module, replacements: Mapping[str, Tensor], *, grouped: Collection[str] = ()) -> None:
    """Put new tensors in the place of parameters and buffers, under every alias, and update the modules' widths.

    Args:
        model: changed in place.
        replacements: by first qualified name. A plain tensor given for a parameter becomes one that requires
            gradients as the old one did.
        grouped: weights known not to be depthwise. Only after a removal that left one channel in every group of a
            grouped convolution does nothing else tell.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    by_identity = {}
    for name, new in replacements.items():
        old = tensors[name]
        if isinstance(old, nn.Parameter) and not isinstance(new, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        by_identity[id(old)] = new
    not_depthwise = {id(tensors[name]) for name in grouped}
    for module in model.modules():
        depthwise = id(module._parameters.get("weight")) not in not_depthwise
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)  # tensors of either kind, or None
        for holder in holders:
            for name, tensor in holder.items():
                if tensor is not None and id(tensor) in by_identity:
                    holder[name] = by_identity[id(tensor)]
        _remember_widths_(module, depthwise=depthwise)


def _remember_widths_(module: nn.Module, *, depthwise: bool) -> None:
    """Bring a module's record of its own widths (``out_channels``, ``num_features``, ...) in line with its weight."""
    if isinstance(module, nn.modules.conv._ConvNd):
        outer, inner = (1, 0) if module.transposed else (0, 1)
        if depthwise and module.groups == module.in_channels > 1:
            multiplier = 1 if module.transposed else module.out_channels // module.in_channels
            module.groups = module.weight.shape[0] // multiplier
        module.out_channels = module.weight.shape[outer] * (module.groups if module.transposed else 1)
        module.in_channels = module.weight.shape[inner] * (1 if module.transposed else module.groups)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        held = module.weight if module.weight is not None else module.running_mean
        if held is not None:
            module.num_features = held.shape[0]
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


def _count_fewer_(model: nn.Module, attribute: str, fewer: int) -> None:
    """Lower a module's own count of channels, norm groups or heads; ``axes_lengths[name]`` is an einops layer's."""
    path, _, name = attribute.rpartition(".")
    module = model.get_submodule(path)
    if name.startswith("axes_lengths["):
        axis = name.partition("[")[2].removesuffix("]")
        lengths: dict[str, int] = {**module.__dict__["axes_lengths"]}
        lengths[axis] -= fewer
        module.__dict__.update(axes_lengths=lengths, _axes_lengths=tuple(lengths.items()))
    else:
        setattr(module, name, getattr(module, name) - fewer)


def _drop(tensor: Tensor, dim: int, positions: set[int]) -> Tensor:
    """``tensor`` without ``positions`` along ``dim``, its gradient, kind and memory format kept."""
    keep = torch.tensor([i for i in range(tensor.shape[dim]) if i not in positions], device=tensor.device)
    smaller = _in_format_of(tensor, tensor.detach().index_select(dim, keep))
    if not isinstance(tensor, nn.Parameter):
        return smaller
    parameter = nn.Parameter(smaller, requires_grad=tensor.requires_grad)
    if tensor.grad is not None:
        parameter.grad = _in_format_of(tensor.grad, tensor.grad.index_select(dim, keep))
    return parameter


def _in_format_of(tensor: Tensor, smaller: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(tensor.ndim)
    if wanted is not None and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=wanted):
        return smaller.contiguous(memory_format=wanted)
    return smaller.contiguous()


def _check_model(model: nn.Module, graph: ChannelGraph) -> None:
    found = {name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    for name, shape in graph.shapes.items():
        if found.get(name) != shape:
            raise PlanMismatchError(
                f"the graph has {name!r} of shape {shape}, the network has {found.get(name, 'no such tensor')}; "
                f"trace this network and plan with its own graph."
            )
