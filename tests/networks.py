"""The networks that the engine is tested on: MONAI's as shipped, and toys that each hold one graph pattern."""

from functools import cache

import torch
from torch import nn

from secateur.graph.records import ChannelGraph
from secateur.prune.trial import trace
from toys import TOYS as CONVOLUTIONAL
from toys import Depthwise as Depthwise
from toys import Grouped as Grouped
from toys import Network as Network
from toys import Residual as Residual
from toys import Toy as Toy
from transformer_toys import TRANSFORMERS


def monai(name: str, side: int, *args, **kwargs) -> Network:
    """A network of `monai.networks.nets` for square RGB images."""

    def build() -> nn.Module:
        from monai.networks import nets

        return getattr(nets, name)(*args, **kwargs)

    return Network(build, ((3, side, side),))


_DYN = {"filters": (4, 8, 16)}
_LEVELS = ((3, 3, 3), (1, 2, 2), (2, 2))
_DEEP = ((3, 3, 3, 3), (1, 2, 2, 2), (2, 2, 2))
_WIDTHS = (4, 4, 8, 8, 16, 4)
_RESIDUAL = {"num_res_units": 2}

MONAI: dict[str, Network] = {
    "basic_unet": monai("BasicUNet", 32, 2, 3, 1, features=_WIDTHS),
    "basic_unet_resize": monai("BasicUNet", 32, 2, 3, 1, features=_WIDTHS, upsample="nontrainable"),
    "unet": monai("UNet", 16, 2, 3, 1, (4, 8, 16), (2, 2)),
    "unet_residual": monai("UNet", 16, 2, 3, 1, (4, 8, 16), (2, 2), dropout=0.2, **_RESIDUAL),
    "unet_batch_norm": monai("UNet", 16, 2, 3, 1, (4, 8, 16), (2, 2), norm="BATCH", **_RESIDUAL),
    "dyn_unet": monai("DynUNet", 16, 2, 3, 1, *_LEVELS, **_DYN),
    "dyn_unet_residual": monai("DynUNet", 16, 2, 3, 1, *_LEVELS, res_block=True, **_DYN),
    "dyn_unet_deep": monai(
        "DynUNet", 32, 2, 3, 1, *_DEEP, filters=(4, 8, 8, 16), deep_supervision=True, deep_supr_num=2
    ),
    "attention_unet": monai("AttentionUnet", 16, 2, 3, 1, (4, 8, 16), (2, 2)),
    "flexible_unet": monai("FlexibleUNet", 64, 3, 1, "efficientnet-b0", decoder_channels=(32, 16, 8, 8, 8)),
}


TOYS: dict[str, Network] = {**CONVOLUTIONAL, **TRANSFORMERS}
ZOO: dict[str, Network] = {**MONAI, **TOYS}
SLOW = ("flexible_unet",)  # 53 groups: seconds to trace and to prove


def build(name: str, *, seed: int = 0) -> nn.Module:
    """A freshly initialised network; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ZOO[name].build()


@cache
def traced(name: str) -> tuple[nn.Module, ChannelGraph]:
    """A network, not to be changed, and its graph; traced once a session."""
    model = build(name)
    return model, trace(model, ZOO[name].inputs())
