"""nnU-Net's networks as shipped, from ``dynamic_network_architectures``, a package that tests may lack."""

from torch import nn

from toys import Network
from zoo_member import OUTPUT, UNREACHED, Shipped

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
}
_COUNTS = {  # class -> how the layers of its encoder are called and how many there are, by default
    "PlainConvUNet": ("n_conv_per_stage", 2),
    "ResidualEncoderUNet": ("n_blocks_per_stage", (1, 3, 4, 6, 6, 6)),
}


def nnunet(
    name: str, dims: int, *, norm: str = "instance", deep: bool = False, features: tuple[int, ...] = (8, 16, 32),
    side: int = 16, blocks: tuple[int, ...] | None = None,
) -> Network:  # fmt: skip
    """A network as nnU-Net's planner makes it: affine norm, leaky rectifier in place, strided convolutions.

    Args:
        name: the class.
        dims: 2 for images, 3 for volumes.
        norm: ``instance`` or ``batch``.
        deep: deep supervision, in both modes.
        features: channels per level, of which there are as many.
        side: of the input, of one channel.
        blocks: layers per level of the encoder; nnU-Net's own by default.
    """

    def build() -> nn.Module:
        from dynamic_network_architectures.architectures import unet

        argument, default = _COUNTS[name]
        per_level = blocks or (default[: len(features)] if isinstance(default, tuple) else (default,) * len(features))
        return getattr(unet, name)(
            input_channels=1,
            n_stages=len(features),
            features_per_stage=features,
            conv_op=_CONV[dims],
            kernel_sizes=3,
            strides=(1, *(2,) * (len(features) - 1)),
            num_classes=3,
            n_conv_per_stage_decoder=2 if name == "PlainConvUNet" else 1,
            conv_bias=True,
            norm_op=_NORMS[norm][dims],
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=deep,
            **{argument: per_level},
        )

    return Network(build, ((1, *(side,) * dims),))


_CHEAP = ("PlainConvUNet", 2, "instance", True), ("ResidualEncoderUNet", 2, "batch", False)

NNUNET: dict[str, Shipped] = {
    f"nnunet_{short}_{dims}d_{norm}{'_deep' * deep}": Shipped(
        nnunet(name, dims, norm=norm, deep=deep, features=(16, 32, 64)),
        0.26,
        (OUTPUT,) if deep else (OUTPUT, UNREACHED),  # the deeper heads
        slow=(name, dims, norm, deep) not in _CHEAP,
        needs="dynamic_network_architectures",
        prototype=0.25,
    )
    for name, short in (("PlainConvUNet", "plain"), ("ResidualEncoderUNet", "residual"))
    for dims in (2, 3)
    for norm in ("instance", "batch")
    for deep in (False, True)
}
