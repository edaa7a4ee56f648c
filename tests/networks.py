"""The networks that the engine is tested on: MONAI's as shipped, and toys that each hold one graph pattern."""

from dataclasses import dataclass
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

OUTPUT = "network output"


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


@dataclass(frozen=True)
class Shipped:
    """A network of MONAI as shipped, and what is expected when every group loses half of its units.

    Attributes:
        network: how to build it.
        macs_kept: the share of its multiply-adds that is left at most; a quarter is ideal.
        pins: how the reasons start for which channels may be pinned.
        slow: too heavy for every run.
        needs: a package that it needs besides MONAI.
    """

    network: Network
    macs_kept: float
    pins: tuple[str, ...] = (OUTPUT,)
    slow: bool = False
    needs: str = "monai"


def volume(name: str, side: int, *args, channels: int = 1, **kwargs) -> Network:
    """A network of `monai.networks.nets` for cubes of one channel."""
    return Network(monai(name, side, *args, **kwargs).build, ((channels, side, side, side),))


def _grey(network: Network) -> Network:
    return Network(network.build, tuple((1, *shape[1:]) for shape in network.shapes))


_NORM = {"norm": ("GROUP", {"num_groups": 4})}
_SEG = {"init_filters": 8, "out_channels": 1, **_NORM}
_DS = {"init_filters": 8, "out_channels": 1, "blocks_down": (1, 1, 1), "blocks_up": (1, 1), "dsdepth": 2}
_VAE = {"vae_nz": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1), **_SEG}
_VIT = {"feature_size": 4, "hidden_size": 32, "mlp_dim": 64, "num_heads": 4, "norm_name": "instance"}
_SWIN = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_size": 2}
_NEXT = {"init_filters": 4, "out_channels": 1, "blocks_down": (1,) * 4, "blocks_bottleneck": 1, "blocks_up": (1,) * 4}
_HIGH = (
    {"name": "conv_0", "n_features": 4, "kernel_size": 3},
    {"name": "res_1", "n_features": 4, "kernels": (3, 3), "repeat": 1},
    {"name": "res_2", "n_features": 8, "kernels": (3, 3), "repeat": 1},
    {"name": "conv_1", "n_features": 8, "kernel_size": 1},
    {"name": "conv_2", "kernel_size": 1},
)
_STREAM = (OUTPUT, "layer_norm mixes all channels")
_UNREAD = "not reached by the forward pass in either mode"

SHIPPED: dict[str, Shipped] = {
    "basic_unet_plus_plus": Shipped(
        monai("BasicUNetPlusPlus", 32, 2, 3, 1, features=_WIDTHS, deep_supervision=True), 0.26
    ),
    "seg_res_net": Shipped(monai("SegResNet", 16, 2, in_channels=3, blocks_down=(1, 2), blocks_up=(1,), **_SEG), 0.27),
    "seg_res_net_ds": Shipped(monai("SegResNetDS", 32, 2, in_channels=3, **_DS), 0.26),
    "seg_res_net_vae": Shipped(
        monai("SegResNetVAE", 16, (16, 16), spatial_dims=2, in_channels=3, **_VAE),
        0.26,
        (OUTPUT, "proof failed", "mean mixes all channels", "operator broadcast_tensors", _UNREAD),
    ),
    "v_net": Shipped(
        _grey(monai("VNet", 32, 2, 1, 1)), 0.30, (OUTPUT, "operator add meets a tensor whose channels are not tracked")
    ),
    "high_res_net": Shipped(
        monai("HighResNet", 16, 2, 3, 1, layer_params=_HIGH), 0.34, (OUTPUT, "channels are padded with a constant")
    ),
    "unetr": Shipped(_grey(monai("UNETR", 32, 1, 2, 32, spatial_dims=2, **_VIT)), 0.30, _STREAM, needs="einops"),
    "swin_unetr": Shipped(
        Network(monai("SwinUNETR", 0, 1, 2, spatial_dims=2, **_SWIN).build, ((1, 64, 32),)),
        0.45,
        (*_STREAM, "proof failed"),
        needs="einops",
    ),
    "med_ne_xt": Shipped(monai("MedNeXt", 32, 2, in_channels=3, deep_supervision=True, **_NEXT), 0.37),
    "med_ne_xt_grn": Shipped(
        monai("MedNeXt", 32, 2, in_channels=3, global_resp_norm=True, **_NEXT), 0.5, (OUTPUT, "mean mixes all channels")
    ),
    "dyn_unet_3d": Shipped(volume("DynUNet", 16, 3, 1, 2, *_LEVELS, res_block=True, **_DYN), 0.27, slow=True),
    "seg_res_net_3d": Shipped(
        volume("SegResNet", 16, 3, in_channels=1, blocks_down=(1, 2), blocks_up=(1,), **_SEG), 0.27, slow=True
    ),
    "unetr_3d": Shipped(volume("UNETR", 32, 1, 2, 32, **_VIT), 0.30, _STREAM, slow=True, needs="einops"),
    "swin_unetr_3d_v2": Shipped(
        Network(monai("SwinUNETR", 0, 1, 2, use_v2=True, **_SWIN).build, ((1, 64, 32, 32),)),
        0.45,
        (*_STREAM, "proof failed"),
        slow=True,
        needs="einops",
    ),
    "med_ne_xt_3d": Shipped(volume("MedNeXt", 32, 3, in_channels=1, **_NEXT), 0.48, slow=True),
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
