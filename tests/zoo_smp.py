"""The networks of ``segmentation_models_pytorch`` as shipped, a package that tests may lack."""

import warnings
from functools import cache
from types import ModuleType

import torch
from torch import nn

from networks import OUTPUT, Shipped
from toys import Network


@cache
def library() -> ModuleType:
    """The package. It imports torchvision, whose wheels are compiled against other builds of torch than the CPU's.

    None of the networks calls a compiled operator of torchvision, but its import wants two of them to exist.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            for name in ("nms", "qnms"):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)
        import segmentation_models_pytorch
    return segmentation_models_pytorch


def smp(name: str, encoder: str, side: int = 64, **options) -> Network:
    """An untrained network for square RGB images of one class.

    Args:
        name: the class.
        encoder: its ``encoder_name``; ``tu-`` ones come from timm.
        side: of the input.
        options: further arguments of the class.
    """

    def build() -> nn.Module:
        classes = library()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(classes, name)(encoder, encoder_weights=None, in_channels=3, classes=1, **options)

    return Network(build, ((3, side, side),))


_MACS_KEPT = {  # class -> the share of multiply-adds that is left at most
    "Unet": 0.28, "UnetPlusPlus": 0.28, "MAnet": 0.32, "Linknet": 0.28, "FPN": 0.38, "PSPNet": 0.28, "PAN": 0.28,
    "DeepLabV3Plus": 0.28, "Segformer": 0.56, "UPerNet": 0.32,
}  # fmt: skip
_ENCODERS = {"resnet": "resnet18", "mobilenet": "mobilenet_v2", "efficientnet": "efficientnet-b0"}
_STREAM = (OUTPUT, "layer_norm mixes all channels")
_PACKAGE = "segmentation_models_pytorch"

SMP: dict[str, Shipped] = {
    **{
        f"smp_{name.lower()}_{short}": Shipped(
            smp(name, encoder), kept, slow=(name, short) != ("Unet", "resnet"), needs=_PACKAGE
        )
        for short, encoder in _ENCODERS.items()
        for name, kept in _MACS_KEPT.items()
    },
    "smp_segformer_mit": Shipped(smp("Segformer", "mit_b0"), 0.56, _STREAM, slow=True, needs=_PACKAGE),
    "smp_dpt_vit": Shipped(
        smp("DPT", "tu-vit_tiny_patch16_224", 224, dynamic_img_size=True), 0.9, _STREAM, slow=True, needs=_PACKAGE
    ),
}
