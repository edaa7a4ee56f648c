"""The tensors of a network by name."""

from torch import Tensor, nn


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, by first qualified name: kernels may be fixed."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
