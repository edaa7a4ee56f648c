"""Fresh weights for a network of any shape."""

import torch
from torch import nn

from secateur.errors import InputError


def draw_anew_(model: nn.Module, seed: int) -> None:
    """Draw all parameters of ``model`` anew, in place, as each layer draws its own when it is made.

    A pruned network so treated is the pruned shape, trained from scratch. What a builder does to its layers' weights
    afterwards is repeated only by networks that do it in a ``reset_parameters`` of their own. The global random state
    is the caller's again.

    Raises:
        InputError: a module holds parameters and has no ``reset_parameters``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # What holds others has the last word: layers come before the blocks and networks that they are in.
        for name, module in sorted(model.named_modules(), key=lambda named: _holds_only_modules(named[1])):
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
            elif not _holds_only_modules(module):
                raise InputError(
                    f"{name or 'the network'} ({type(module).__name__}) holds parameters and has no "
                    f"reset_parameters, so its shape cannot be trained from scratch; give it that method."
                )


def _holds_only_modules(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is None
