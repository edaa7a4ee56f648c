"""The reference networks of our recipes: MONAI's, with the arguments spelt out."""

from secateur.nets.spec import ModelSpec


def monai_unet(width: int, *, levels: int = 5, in_channels: int = 3, out_channels: int = 1) -> ModelSpec:
    """MONAI's residual 2D U-Net with instance norm and PReLU, as shipped; ``width`` channels double per level.

    Args:
        width: channels of the first level. Five levels of width 32 take 5.7 GMACs for a 352x352 frame, of width
            64 22.7 GMACs.
        levels: resolutions; the input's sides must be multiples of 2 to the power ``levels - 1``.
        in_channels: of the image.
        out_channels: logits per pixel.
    """
    return ModelSpec(
        "monai.networks.nets:UNet",
        {
            "spatial_dims": 2,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": [width * 2**level for level in range(levels)],
            "strides": [2] * (levels - 1),
            "num_res_units": 2,
        },
    )
