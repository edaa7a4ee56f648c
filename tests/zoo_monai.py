"""MONAI's networks as shipped, in 2D and 3D, at the widths (16 to 128 channels) that the prototype was measured at."""

import contextlib
import io
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import nn

from masking import halving
from secateur.graph.trace import trace_channels
from secateur.prune.surgery import cut_
from toys import Network
from zoo_member import OUTPUT, PROOF, STREAM, UNREACHED, Shipped

_CHANNELS = {2: 3, 3: 1}  # colour images, grey volumes


def nets() -> ModuleType:
    """``monai.networks.nets``, which takes seconds to import."""
    from monai.networks import nets

    return nets


def both(
    name: str, make: Callable[[int], nn.Module], *, kept: tuple[float, float],
    prototype: tuple[float, float] | tuple[None, None] = (None, None), sides: tuple[int, int] = (32, 16),
    channels: int | None = None, slow: tuple[bool, bool] = (False, True), **expected,
) -> dict[str, Shipped]:  # fmt: skip
    """A network for images, ``name``, and for volumes, ``name_3d``: pairs are of 2D and 3D.

    Args:
        name: of the member.
        make: builds it for a number of dimensions.
        kept: as in `Shipped`.
        prototype: as in `Shipped`.
        sides: of square or cubic inputs.
        channels: of the input, where it is not three for images and one for volumes.
        slow: as in `Shipped`.
        expected: further attributes of `Shipped`.
    """
    return {
        name + ("" if dims == 2 else "_3d"): Shipped(
            Network(lambda dims=dims: make(dims), ((channels or _CHANNELS[dims], *(sides[place],) * dims),)),
            kept[place],
            slow=slow[place],
            prototype=prototype[place],
            **expected,
        )
        for place, dims in enumerate((2, 3))
    }


def one(make: Callable[[], nn.Module], shape: tuple[int, ...], kept: float, **expected) -> Shipped:
    """A network for inputs of one shape."""
    return Shipped(Network(make, (shape,)), kept, **expected)


_WIDE = (16, 16, 32, 64, 128, 16)
_RESIDUAL = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 2}
_PLAIN = {"channels": (16, 32, 64), "strides": (2, 2)}
_DYN = {"filters": (16, 32, 64), "kernel_size": (3, 3, 3), "strides": (1, 2, 2), "upsample_kernel_size": (2, 2)}
_DEEP = {
    "filters": (16, 32, 64, 64), "kernel_size": (3,) * 4, "strides": (1, 2, 2, 2), "upsample_kernel_size": (2,) * 3,
    "deep_supervision": True, "deep_supr_num": 2,
}  # fmt: skip
_SEG = {"init_filters": 16, "out_channels": 1}
_DS = {**_SEG, "blocks_down": (1, 1, 1), "blocks_up": (1, 1), "dsdepth": 2}
_VAE = {**_SEG, "vae_nz": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)}
_VIT = {"feature_size": 16, "hidden_size": 96, "mlp_dim": 192, "num_heads": 6}
_SWIN = {"feature_size": 24, "depths": (1, 1, 1, 1), "num_heads": (3, 6, 12, 24), "window_size": 2}
_NEXT = {"init_filters": 16, "out_channels": 1, "blocks_down": (1,) * 4, "blocks_bottleneck": 1, "blocks_up": (1,) * 4}
_THIN = {  # no transformer of comparable width is quick enough for every run
    "feature_size": 4, "hidden_size": 32, "mlp_dim": 64, "num_heads": 4,
}  # fmt: skip


def dims_of(dims: int) -> dict[str, int]:
    """What all of MONAI's networks call the same."""
    return {"spatial_dims": dims, "in_channels": _CHANNELS[dims]}


def dints(dims: int) -> nn.Module:
    """A network as an architecture search leaves it: most paths between three resolutions, one operation on each."""
    from monai.networks.nets.dints import TopologyInstance

    choice = np.random.default_rng(0)
    paths = np.ones((3, 7))
    paths[1, ::3] = 0
    operations = choice.integers(1, 2 if dims == 2 else 5, size=(3, 7))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what sides it recommends
        space = TopologyInstance([paths, operations], 0.5, num_blocks=3, num_depths=3, spatial_dims=dims)
    return nets().DiNTS(space, _CHANNELS[dims], 2, spatial_dims=dims, node_a=torch.ones((4, 3)))


def hover_net() -> nn.Module:
    """HoVerNet with an eighth of its channels, all that a test can afford of its 150 GMACs.

    It has no argument for its widths and takes no input but of 256 x 256 pixels, so the engine itself thins it, down to
    two units in each group. Its structure is found on shapes alone.
    """

    def build() -> nn.Module:
        return nets().HoVerNet(in_channels=3, out_classes=5)

    model = build()
    with torch.device("meta"):
        graph = trace_channels(build(), torch.zeros(1, 3, 256, 256))
    for _ in range(3):
        plan = {group: units for group, units in halving(graph).kept.items() if len(units) > 1}
        cut_(model, graph, plan)
        graph = graph.keep(plan)
    return model


_REPEATED = "operator add meets a tensor whose channels are not tracked"  # the input, repeated to the width
_PADDED = "channels are padded with a constant"
_RESPONSE = "mean mixes all channels"  # global response normalisation

SHIPPED: dict[str, Shipped] = {
    **both(
        "basic_unet",
        lambda d: nets().BasicUNet(d, _CHANNELS[d], 1, _WIDE),
        sides=(32, 32),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both(
        "basic_unet_resize",
        lambda d: nets().BasicUNet(d, _CHANNELS[d], 1, _WIDE, upsample="nontrainable"),
        sides=(32, 32),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both(
        "basic_unet_plus_plus",
        lambda d: nets().BasicUNetPlusPlus(d, _CHANNELS[d], 1, _WIDE, deep_supervision=True),
        sides=(32, 32),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both("unet", lambda d: nets().UNet(**dims_of(d), out_channels=1, **_PLAIN), kept=(0.27, 0.28)),
    **both(
        "unet_residual",
        lambda d: nets().UNet(**dims_of(d), out_channels=1, **_RESIDUAL),
        kept=(0.26, 0.27),
        prototype=(0.26, 0.30),
    ),
    **both(
        "unet_batch_norm",
        lambda d: nets().UNet(**dims_of(d), out_channels=1, norm="BATCH", dropout=0.2, **_RESIDUAL),
        kept=(0.26, 0.27),
        prototype=(0.27, 0.30),
    ),
    **both(
        "dyn_unet",
        lambda d: nets().DynUNet(**dims_of(d), out_channels=1, **_DYN),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both(
        "dyn_unet_residual",
        lambda d: nets().DynUNet(**dims_of(d), out_channels=1, res_block=True, **_DYN),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both("dyn_unet_deep", lambda d: nets().DynUNet(**dims_of(d), out_channels=1, **_DEEP), kept=(0.26, 0.26)),
    **both(
        "attention_unet",
        lambda d: nets().AttentionUnet(**dims_of(d), out_channels=1, **_PLAIN),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both(
        "seg_res_net",
        lambda d: nets().SegResNet(**dims_of(d), **_SEG),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both(
        "seg_res_net_ds",
        lambda d: nets().SegResNetDS(**dims_of(d), **_DS),
        sides=(32, 32),
        kept=(0.26, 0.26),
        prototype=(0.25, 0.25),
    ),
    **both(
        "seg_res_net_vae",
        lambda d: nets().SegResNetVAE({2: (32,) * 2, 3: (16,) * 3}[d], **dims_of(d), **_VAE),
        kept=(0.26, 0.26),
        pins=(OUTPUT, PROOF, "mean mixes all channels", "operator mse_loss has no rule", UNREACHED),
    ),
    **both(
        "v_net",
        lambda d: nets().VNet(d, 1, 1),
        sides=(32, 32),
        kept=(0.30, 0.38),
        prototype=(0.65, 0.39),
        channels=1,
        pins=(OUTPUT, _REPEATED),
        slow=(True, True),
    ),
    **both(
        "high_res_net",
        lambda d: nets().HighResNet(**dims_of(d)),
        kept=(0.42, 0.42),
        prototype=(0.50, 0.50),
        pins=(OUTPUT, _PADDED),
        slow=(True, True),
    ),
    **both(
        "flexible_unet",
        lambda d: nets().FlexibleUNet(
            _CHANNELS[d], 1, "efficientnet-b0", spatial_dims=d, decoder_channels=(64, 32, 16, 16, 16)
        ),
        sides=(64, 32),
        kept=(0.27, 0.27),
        prototype=(0.26, 0.26),
        pins=(OUTPUT, UNREACHED),
        slow=(True, True),
    ),
    **both(
        "med_ne_xt",
        lambda d: nets().MedNeXt(d, kernel_size=3, in_channels=_CHANNELS[d], **_NEXT),
        sides=(32, 32),
        kept=(0.26, 0.30),
    ),
    **both(
        "med_ne_xt_small",
        lambda d: nets().MedNeXtSmall(**dims_of(d), out_channels=1, deep_supervision=True),
        sides=(32, 32),
        kept=(0.26, 0.28),
        prototype=(0.30, 0.43),
        slow=(True, True),
    ),
    **both(
        "med_ne_xt_grn",
        lambda d: nets().MedNeXt(d, kernel_size=3, in_channels=_CHANNELS[d], global_resp_norm=True, **_NEXT),
        sides=(32, 32),
        kept=(0.49, 0.50),
        pins=(OUTPUT, _RESPONSE),
        slow=(True, True),
    ),
    **both(
        "dints",
        dints,
        kept=(0.26, 0.26),
        slow=(True, True),
        not_exported="Could not guard on data-dependent expression",  # its forward asks tensors which paths there are
    ),
    "hover_net": one(hover_net, (3, 256, 256), 0.27, slow=True),
    "unetr_thin": one(
        lambda: nets().UNETR(1, 2, 32, spatial_dims=2, **_THIN),
        (1, 32, 32),
        0.30,
        pins=(OUTPUT, STREAM),
        needs="einops",
    ),
    **both(
        "unetr",
        lambda d: nets().UNETR(1, 2, 32, spatial_dims=d, **_VIT),
        sides=(32, 32),
        kept=(0.28, 0.259),
        prototype=(0.31, 0.26),
        transformer=True,
        channels=1,
        pins=(OUTPUT, STREAM),
        slow=(True, True),
        needs="einops",
    ),
    **{
        f"swin_unetr_v{version}{'' if dims == 2 else '_3d'}": one(
            lambda dims=dims, version=version: nets().SwinUNETR(1, 2, spatial_dims=dims, use_v2=version == 2, **_SWIN),
            (1, 64, *(32,) * (dims - 1)),
            kept,
            prototype={(1, 2): 0.56, (1, 3): 0.44}.get((version, dims)),
            transformer=True,
            pins=(OUTPUT, STREAM, PROOF),
            slow=True,
            needs="einops",
        )
        for version, dims, kept in ((1, 2, 0.40), (1, 3, 0.31), (2, 2, 0.41), (2, 3, 0.32))
    },
}
