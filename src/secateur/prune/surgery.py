"""Physically removing what a plan says: parameters, buffers, gradients and the widths that modules remember."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from secateur.errors import InputError, PlanMismatchError
from secateur.graph.copying import safe_copy
from secateur.graph.records import ChannelGraph, Kept, Role, removed_positions
from secateur.graph.tensors import named_tensors
from secateur.prune.plan import PruningPlan, check_plan
from secateur.prune.proof import Proof, prove_surgery, prove_weights
from secateur.prune.wrappers import shapes_of


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
        InputError: weights that are not finite.
        ProofError: the smaller network differs from the masked one; nothing is handed back.
    """
    return remove_with_proof(model, graph, plan)[0]


@torch.inference_mode(False)
def remove_with_proof(model: nn.Module, graph: ChannelGraph, plan: PruningPlan) -> tuple[nn.Module, Proof]:
    """The same as `remove`, with the record of its proof."""
    check_plan(graph, plan)
    check_model(model, graph)
    check_finite(model)
    proof = prove_surgery(model, graph, plan.kept, cut_).require()  # first, as long as there is one network to hold
    small = cut_copy(model, graph, plan.kept)
    return small, prove_weights(proof, model, small, graph, plan.kept).require()


def cut_copy(model: nn.Module, graph: ChannelGraph, kept: Kept) -> nn.Module:
    """A copy of ``model`` cut as by `cut_`. What is cut is not copied whole first."""
    identities = {name: id(tensor) for name, tensor in named_tensors(model).items()}
    smaller = dict(_smaller_tensors(model, graph, kept))
    twin = safe_copy(model, instead={identities[name]: tensor for name, tensor in smaller.items()})
    _install_(twin, graph, kept, smaller.items())
    return twin


def cut_(model: nn.Module, graph: ChannelGraph, kept: Kept) -> None:
    """Cut ``model`` in place, without proof: every alias of every tensor, and the modules' own widths.

    Tensors are cut and replaced one after the other, so that this takes no second network.
    """
    _install_(model, graph, kept, _smaller_tensors(model, graph, kept))


def _smaller_tensors(model: nn.Module, graph: ChannelGraph, kept: Kept) -> Iterator[tuple[str, Tensor]]:
    """Those tensors of ``model`` that lose something, cut, by first qualified name."""
    tensors, counted = named_tensors(model), _counted(graph)
    removed: dict[str, list[tuple[int, set[int]]]] = {}
    for (name, dim), positions in removed_positions(graph, kept).items():
        if name not in counted:
            removed.setdefault(name, []).append((dim, positions))
    for name, cuts in removed.items():
        tensor = tensors.pop(name)
        for dim, positions in cuts:
            tensor = _drop(tensor, dim, positions)
        yield name, tensor


def _install_(model: nn.Module, graph: ChannelGraph, kept: Kept, smaller: Iterable[tuple[str, Tensor]]) -> None:
    """Give ``model`` its smaller tensors, and lower its own counts of channels."""
    counted = _counted(graph)
    for (name, _), positions in removed_positions(graph, kept).items():
        if name in counted:
            count_fewer_(model, name, len(positions))
    _replace_(model, smaller, grouped={read.tensor for group in graph.groups for read in group.reads()})


def _counted(graph: ChannelGraph) -> set[str]:
    """The attributes of modules that count channels; tensors they are not."""
    return {piece.tensor for group in graph.groups for piece in group.slices if piece.role is Role.WIDTH}


def replace_tensors_(model: nn.Module, replacements: Mapping[str, Tensor], *, grouped: Collection[str] = ()) -> None:
    """Put new tensors in the place of parameters and buffers, under every alias, and update the modules' widths.

    Args:
        model: changed in place.
        replacements: by first qualified name. A plain tensor given for a parameter becomes one that requires
            gradients as the old one did.
        grouped: weights known not to be depthwise. Only after a removal that left one channel in every group of a
            grouped convolution does nothing else tell.
    """
    _replace_(model, replacements.items(), grouped=grouped)


def _replace_(model: nn.Module, replacements: Iterable[tuple[str, Tensor]], *, grouped: Collection[str]) -> None:
    """The same, one tensor after the other, each old one let go before the next is asked for."""
    tensors = named_tensors(model)
    not_depthwise = {id(tensors[name]) for name in grouped}
    depthwise = {module: id(module._parameters.get("weight")) not in not_depthwise for module in model.modules()}
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for module in model.modules():
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)  # tensors of either kind, or None
        for holder in holders:
            for key, tensor in holder.items():
                places.setdefault(id(tensor), []).append((holder, key))
    for name, new in replacements:
        old = tensors.pop(name)
        if isinstance(old, nn.Parameter) and not isinstance(new, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for holder, key in places.pop(id(old)):
            holder[key] = new
        del old
    for module, is_depthwise in depthwise.items():
        _remember_widths_(module, depthwise=is_depthwise)


def _remember_widths_(module: nn.Module, *, depthwise: bool) -> None:
    """Bring a module's record of its own widths (``out_channels``, ``num_features``, ...) in line with its weight."""
    weight = _held_weight(module)
    if weight is None:
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.num_features = module.running_mean.shape[0]
    elif isinstance(module, nn.modules.conv._ConvNd):
        outer, inner = (1, 0) if module.transposed else (0, 1)
        if depthwise and module.groups == module.in_channels > 1:
            multiplier = 1 if module.transposed else module.out_channels // module.in_channels
            module.groups = weight.shape[0] // multiplier
        module.out_channels = weight.shape[outer] * (module.groups if module.transposed else 1)
        module.in_channels = weight.shape[inner] * (1 if module.transposed else module.groups)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = weight.shape[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]


def _held_weight(module: nn.Module) -> Tensor | None:
    """The parameter of the shape of a module's weight, which weight norm holds as a direction.

    Any other computed weight is let alone: it never shrinks, and to read it is to run its code, as training does.
    """
    own = module._parameters
    parametrized: Any = module._modules.get("parametrizations")  # a `ModuleDict` of `ParametrizationList`
    if parametrized is not None and "weight" in parametrized:
        is_weight_norm = isinstance(parametrized["weight"][0], parametrizations._WeightNorm)
        return parametrized["weight"].original1 if is_weight_norm else None
    weight = own.get("weight")
    return weight if weight is not None else own.get("weight_v")


def count_fewer_(model: nn.Module, attribute: str, fewer: int) -> None:
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


def check_finite(model: nn.Module) -> None:
    """Raise `InputError` where a parameter is not finite, or a buffer, which may hold a mask of infinities, is NaN."""
    wrong = [name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all())]
    wrong += [name for name, buffer in model.named_buffers() if bool(buffer.isnan().any())]
    if wrong:
        raise InputError(
            f"the network's {wrong[0]!r} is not finite, so no removal can be proved; "
            f"go back to a checkpoint from before the training diverged."
        )


def check_model(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise `PlanMismatchError` unless the tensors of ``model`` have the shapes that ``graph`` was traced with."""
    found = shapes_of(model)
    for name, shape in graph.shapes.items():
        if found.get(name) != shape:
            raise PlanMismatchError(
                f"the graph has {name!r} of shape {shape}, the network has {found.get(name, 'no such tensor')}; "
                f"trace this network and plan with its own graph."
            )
