"""The networks of ``segmentation_models_pytorch`` as shipped, a package that tests may lack."""

import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import nn

from toys import Network
from zoo_member import AT_ONCE, OUTPUT, PROOF, STREAM, UNREACHED, Shipped

_PACKAGE = "segmentation_models_pytorch"


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


@dataclass(frozen=True)
class _Decoder:
    """What is expected of a class with the encoders ResNet-18, MobileNetV2 and EfficientNet-B0, in this order."""

    kept: tuple[float, float, float]
    prototype: float  # what the prototype kept with ResNet-18
    pins: tuple[str, ...] = ()
    side: int = 64


_ENCODERS = {"resnet": "resnet18", "mobilenet": "mobilenet_v2", "efficientnet": "efficientnet-b0"}
_DECODERS = {
    "Unet": _Decoder((0.26, 0.26, 0.26), 0.25),
    "UnetPlusPlus": _Decoder((0.26, 0.26, 0.26), 0.25),
    # Its attention takes (positions, channels) for (channels, positions), so that the deepest features leave all at
    # once: 512, 1280 and 320 channels, whose two 3 x 3 convolutions are 5, 36 and 4 % of all MACs.
    "MAnet": _Decoder((0.31, 0.44, 0.28), 0.30, ("matmul mixes all channels", AT_ONCE)),
    "Linknet": _Decoder((0.27, 0.27, 0.28), 0.26),
    "FPN": _Decoder((0.26, 0.26, 0.26), 0.36),
    # Three levels of an encoder and little behind them: the first convolution is 5 % of all MACs, and depthwise ones,
    # of MobileNetV2 and EfficientNet-B0, are halved and not quartered.
    "PSPNet": _Decoder((0.28, 0.29, 0.30), 0.26, (UNREACHED,)),
    "PAN": _Decoder((0.27, 0.27, 0.28), 0.25, side=128),
    "DeepLabV3Plus": _Decoder((0.26, 0.27, 0.27), 0.25),
    "Segformer": _Decoder((0.26, 0.26, 0.26), 0.56),
    "UPerNet": _Decoder((0.299, 0.27, 0.26), 0.30, (STREAM,)),
}

SMP: dict[str, Shipped] = {
    **{
        f"smp_{name.lower()}_{short}": Shipped(
            smp(name, encoder, decoder.side),
            decoder.kept[place],
            (OUTPUT, *decoder.pins, *((UNREACHED,) if short == "efficientnet" else ())),
            slow=True,
            needs=_PACKAGE,
            prototype=decoder.prototype if short == "resnet" else None,
            unread=("encoder.",) if name == "PSPNet" else (),
        )
        for place, (short, encoder) in enumerate(_ENCODERS.items())
        for name, decoder in _DECODERS.items()
    },
    "smp_segformer_mit": Shipped(
        smp("Segformer", "mit_b0"),
        0.41,
        (OUTPUT, STREAM, PROOF, "matmul mixes all channels"),
        slow=True,
        needs=_PACKAGE,
    ),
    "smp_dpt_vit": Shipped(
        smp("DPT", "tu-vit_tiny_patch16_224", img_size=64),
        0.28,
        (OUTPUT, STREAM, PROOF, UNREACHED),
        slow=True,
        needs=_PACKAGE,
    ),
}
