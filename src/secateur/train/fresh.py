"""Fresh weights for a network of any shape."""

import torch
from torch import nn

from secateur.errors import InputError


def draw_anew_(model: nn.Module, seed: int) -> None:
    """Draw all parameters of ``model`` anew, in place, as each layer draws its own when it is made.

    A pruned network so treated is the pruned shape, trained from scratch. What a builder does to its layers' weights
    afterwards is not repeated. The global random state is the caller's again.

    Raises:
        InputError: a module holds parameters and has no ``reset_parameters``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise InputError(
                    f"{name or 'the network'} ({type(module).__name__}) holds parameters and has no "
                    f"reset_parameters, so its shape cannot be trained from scratch; give it that method."
                )
