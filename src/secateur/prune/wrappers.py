"""The network inside what is put around it: for several processes, for averaging, for compilation."""

from collections.abc import Mapping

from torch import nn

from secateur.errors import PlanMismatchError
from secateur.graph.tensors import named_tensors

Shapes = Mapping[str, tuple[int, ...]]  # of parameters and buffers, by first qualified name


def unwrapped(wrapper: nn.Module, shapes: Shapes) -> nn.Module:
    """Of ``wrapper`` and the modules down to which it holds the same parameters, the one that fits ``shapes`` best."""
    chain, whole = [wrapper], {id(parameter) for parameter in wrapper.parameters()}
    while inner := [m for m in chain[-1].children() if {id(parameter) for parameter in m.parameters()} == whole]:
        chain.append(inner[0])
    return max(chain, key=lambda module: len(shapes.items() & shapes_of(module).items()))


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters and buffers, by first qualified name."""
    return {name: tuple(t.shape) for name, t in named_tensors(network).items()}


def parameters_of(model: nn.Module, shapes: Shapes) -> dict[str, nn.Parameter]:
    """The parameters that ``shapes`` names, of the network in ``model``.

    Raises:
        PlanMismatchError: the network does not have one of them, or has it in another shape.
    """
    network = unwrapped(model, shapes)
    parameters = dict(network.named_parameters())
    for name, shape in shapes.items():
        found = tuple(parameters[name].shape) if name in parameters else None
        if found != shape:
            has = "does not have" if found is None else f"has in the shape {found}"
            raise PlanMismatchError(
                f"weights are chosen in {name!r} of shape {shape}, which this {type(network).__name__} {has}; "
                f"choose them anew in this network."
            )
    return {name: parameters[name] for name in shapes}
