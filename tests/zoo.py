"""The zoo: every segmentation network that secateur promises to prune as its library ships it."""

import torch
from torch import nn

from zoo_member import Shipped
from zoo_monai import SHIPPED
from zoo_nnunet import NNUNET
from zoo_smp import SMP

ALL: dict[str, Shipped] = {**SHIPPED, **NNUNET, **SMP}


def build(name: str) -> nn.Module:
    """A member, freshly initialised; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ALL[name].network.build()
