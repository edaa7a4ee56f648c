"""Which single weights may leave: the kernels of convolutions, without the layers that give the network's outputs."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from secateur.errors import InputError
from secateur.graph.copying import safe_copy

LayerTypes = tuple[type[nn.Module], ...]

_TRANSPOSED: LayerTypes = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS: LayerTypes = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


@dataclass(frozen=True)
class PrunableWeight:
    """One kernel whose elements may leave.

    Attributes:
        name: of the parameter, the first one where several modules share it.
        shape: ``(C_out, C_in / groups, *kernel)``; transposed ``(C_in, C_out / groups, *kernel)``.
        input_dim: along which the layer sums over input channels: 0 where it is transposed, else 1.
        input_groups: equal parts of ``input_dim`` that are never summed together; 1 but for grouped transposed ones.
    """

    name: str
    shape: tuple[int, ...]
    input_dim: int = 1
    input_groups: int = 1

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return prod(self.shape)


def prunable_weights(
    model: nn.Module,
    *,
    keep: Collection[str],
    parts: Collection[str] = (),
    layers: LayerTypes = CONVOLUTIONS,
) -> tuple[PrunableWeight, ...]:
    """The kernels of ``model`` that lose weights, in the order of its parameters, each once however often it is used.

    Biases and the parameters of norms stay: they are few, and a zero there means something else. Linear layers stay
    too unless ``layers`` has them, since a compression ratio is stated over convolutions (arXiv 2206.07422).

    Args:
        model: any network. What counts is the parameter: a layer that derives its kernel from it in ``forward``,
            such as one with weight standardisation, may multiply by other values than the zeros that it holds.
        keep: names of modules or parameters that stay whole; usually ``output_weights(model, example)``, since a
            layer that decides the result itself has few weights and no later layer to make up for them.
        parts: names of modules or parameters outside of which everything stays; none means the whole network.
        layers: whose ``weight`` may leave, e.g. ``(*CONVOLUTIONS, nn.Linear)``.

    Raises:
        InputError: a name that the network does not have, a kernel that is computed from other parameters or not yet
            known or not of floating point, or no kernel left.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    staying = _named(model, keep)
    allowed = _named(model, parts) if parts else set(names)
    found: dict[str, PrunableWeight] = {}
    for path, layer in model.named_modules():
        if not isinstance(layer, layers):
            continue
        own = {id(parameter) for name, parameter in layer.named_parameters() if "bias" not in name}
        if own <= staying or not own & allowed:
            continue
        parameter = _kernel(path, layer)
        if id(parameter) in allowed - staying:
            transposed = isinstance(layer, _TRANSPOSED)
            name, shape = names[id(parameter)], tuple(parameter.shape)
            groups = int(getattr(layer, "groups", 1)) if transposed else 1
            found.setdefault(name, PrunableWeight(name, shape, 0 if transposed else 1, groups))
    if not found:
        raise InputError(
            f"{type(model).__name__} has no weights that may leave: of its {len(names)} parameters none is the kernel "
            f"of a {', '.join(kind.__name__ for kind in layers)} outside of what is kept; keep less (in a recipe "
            f"sparsity.outputs=true), or give layers."
        )
    return tuple(found[name] for name in names.values() if name in found)


def output_weights(model: nn.Module, example: Tensor | Sequence[Tensor]) -> frozenset[str]:
    """Names of the weights of the layers that give the outputs of ``model``, deep-supervision heads included.

    How it works: a copy runs on ``example`` in eval and in train mode; from every tensor that it returns one walks
    back along what autograd recorded, to the first convolutions or Linear layers on every path. Everything in
    between (upsampling, softmax, a norm, a sum with other layers) is passed through.

    Args:
        model: any network that runs; untouched, and the global random state with it.
        example: one input ``(N, C, *space)`` or several, on the network's device; only the structure matters.

    Raises:
        InputError: the walk meets no such layer, or activation checkpointing that hides them; name them yourself.
    """
    inputs = [example] if isinstance(example, Tensor) else list(example)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    originals = [names[id(parameter)] for parameter in model.parameters()]
    devices = {tensor.device for tensor in inputs if tensor.device.type == "cuda"}
    found: set[str] = set()
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=list(devices)):
        twin = safe_copy(model).requires_grad_(True)
        copied = {id(parameter): name for parameter, name in zip(twin.parameters(), originals, strict=True)}
        for training in (False, True):
            made, outputs = _run(twin.train(training), [_twice(tensor) for tensor in inputs])
            layers = [layer for node in _ends(outputs, made) for layer in made[node]]
            found |= {copied[id(p)] for layer in layers for name, p in layer.named_parameters() if "bias" not in name}
    if not found:
        raise InputError(
            f"No convolution or Linear layer leads to the outputs of {type(model).__name__}; "
            f"name the output layers that are to stay whole."
        )
    return frozenset(found)


def _named(model: nn.Module, names: Collection[str]) -> set[int]:
    """The identities of the parameters that are, or are inside, what ``names`` names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules = dict(model.named_modules(remove_duplicate=False))
    found: set[int] = set()
    for name in names:
        if name in parameters:
            found.add(id(parameters[name]))
        elif name in modules:
            found |= {id(parameter) for parameter in modules[name].parameters()}
        else:
            near = get_close_matches(name, [*modules, *parameters], n=3, cutoff=0.3) or list(modules)[1:4]
            raise InputError(
                f"{type(model).__name__} has no module or parameter {name!r}; the nearest are {', '.join(near)}."
            )
    return found


def _kernel(path: str, layer: nn.Module) -> nn.Parameter:
    parameter = layer._parameters.get("weight")
    if parameter is None:
        raise InputError(
            f"the weight of {path!r} is computed from {', '.join(n for n, _ in layer.named_parameters()) or 'nothing'},"
            f" so a zero in it cannot be kept; remove the parametrization first, or keep the layer whole."
        )
    if is_lazy(parameter):
        raise InputError(f"the weight of {path!r} has no shape yet; run the network once on an example first.")
    if not parameter.is_floating_point():
        raise InputError(f"the weight of {path!r} is {parameter.dtype}; prune before it is quantized, or keep it.")
    return parameter


def _twice(tensor: Tensor) -> Tensor:
    """Two samples, with which norms over the batch run in train mode too."""
    return tensor.detach() if len(tensor) > 1 else torch.cat([tensor.detach()] * 2)


def _run(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[Node, list[nn.Module]], list[Node]]:
    """The autograd nodes of what each layer made, and of the outputs."""
    made: dict[Node, list[nn.Module]] = {}

    def note(layer: nn.Module, _: Any, output: Any) -> None:  # whatever a layer takes and returns
        if isinstance(output, Tensor) and output.grad_fn is not None:
            made.setdefault(output.grad_fn, []).append(layer)

    hooks = [
        layer.register_forward_hook(note)
        for layer in network.modules()
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear))
    ]
    outputs = network(*inputs)
    for hook in hooks:
        hook.remove()
    tensors = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return made, [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]


def _ends(outputs: Sequence[Node], made: Collection[Node]) -> Iterator[Node]:
    """The first nodes of ``made`` on every way back from ``outputs``."""
    pending, seen = list(outputs), set(outputs)
    while pending:
        node = pending.pop()
        if node in made:
            yield node
            continue
        if "CheckpointFunction" in node.name():
            raise InputError(
                "The network's outputs come out of activation checkpointing, which hides the layers that make them; "
                "switch it off, or name the output layers that are to stay whole."
            )
        following = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= following
        pending += following
