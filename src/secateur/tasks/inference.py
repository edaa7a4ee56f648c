"""Run a network without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a network are."""
    return next(model.parameters()).device


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module's own mode comes back, frozen ones included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
