"""Two branches for nuclei: where nuclei are, and how deep in its nucleus a pixel lies.

Each branch is a U-Net with two 3x3 convolutions and ReLU per level, drop-out between them, max-pooling, 2x2 transposed
convolutions of stride 2, concatenating skips and no normalisation: after the dual-decoder networks of the authors of
Mahbod et al. 2022 (``masih4/dual_decoder_nuclei_segmentation``), who do not describe the networks that they pruned.
Built from MONAI's convolution block. Deviations: all weights start as He et al. 2015 (there only the distance branch's;
the other branch's Glorot), and drop-out is the same at all levels of both branches.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.nets.spec import ModelSpec

WIDTHS = (16, 32, 64, 128, 256)
_DOUBLING = {"is_transposed": True, "kernel_size": 2, "strides": 2, "padding": 0, "output_padding": 0}


def two_networks(widths: Sequence[int] = WIDTHS, *, dropout: float = 0.1) -> ModelSpec:
    """`TwoNetworks`: 3.9 M parameters and 6.1 GMACs for a window of 256x256 pixels at the default widths."""
    return ModelSpec("secateur.nets.nuclei:TwoNetworks", {"widths": list(widths), "dropout": dropout})


def shared_encoder(widths: Sequence[int] = WIDTHS, *, dropout: float = 0.1) -> ModelSpec:
    """`SharedEncoder`: 2.7 M parameters and 5.0 GMACs for a window of 256x256 pixels at the default widths."""
    return ModelSpec("secateur.nets.nuclei:SharedEncoder", {"widths": list(widths), "dropout": dropout})


@final
class TwoNetworks(nn.Module):
    """Maps an RGB image ``(N, 3, H, W)`` to ``(N, 2, H, W)`` by two networks that share nothing.

    Channel 0 is the logit of nucleus against background, channel 1 the distance, see
    `secateur.data.distance.distance_targets`. H and W are multiples of 2 to the power ``len(widths) - 1``. The
    parameters of the branches lie under ``semantic.`` and ``distance.``.

    Args:
        widths: channels of each level.
        dropout: share of activations dropped between the two convolutions of a level.

    Raises:
        InputError: fewer than two levels, or a width or share out of range.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, *, dropout: float = 0.1) -> None:
        super().__init__()
        _require(widths, dropout)
        self.semantic = _u_net(widths, dropout)
        self.distance = _u_net(widths, dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        _draw_weights_(self)

    def forward(self, image: Tensor) -> Tensor:
        """Run both networks."""
        return torch.cat((self.semantic(image), self.distance(image)), dim=1)


@final
class SharedEncoder(nn.Module):
    """The same map as `TwoNetworks` by one encoder with two decoders, with 70 % of its parameters and 82 % of its MACs.

    The parameters lie under ``encoder.``, ``semantic.`` and ``distance.``.

    Args:
        widths: channels of each level.
        dropout: share of activations dropped between the two convolutions of a level.

    Raises:
        InputError: fewer than two levels, or a width or share out of range.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, *, dropout: float = 0.1) -> None:
        super().__init__()
        _require(widths, dropout)
        self.encoder = _Encoder(widths, dropout)
        self.semantic = _Decoder(widths, dropout)
        self.distance = _Decoder(widths, dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        _draw_weights_(self)

    def forward(self, image: Tensor) -> Tensor:
        """Run the encoder once and both decoders."""
        levels = self.encoder(image)
        return torch.cat((self.semantic(levels), self.distance(levels)), dim=1)


class _Encoder(nn.Module):
    """Returns the features of every level, the finest first."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(*pair, dropout) for pair in pairwise((3, *widths)))
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(self.pool(features[-1])))
        return features


class _Decoder(nn.Module):
    """Returns one channel from the features of every level."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        from monai.networks.blocks import Convolution

        upwards = list(pairwise(reversed(widths)))
        self.ups = nn.ModuleList(Convolution(2, deep, fine, **_DOUBLING, conv_only=True) for deep, fine in upwards)
        self.levels = nn.ModuleList(_level(2 * fine, fine, dropout) for _, fine in upwards)
        self.output = Convolution(2, widths[0], 1, kernel_size=1, conv_only=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, current = features
        for up, level, skip in zip(self.ups, self.levels, reversed(skips), strict=True):
            current = level(torch.cat((skip, up(current)), dim=1))
        result: Tensor = self.output(current)
        return result


def _u_net(widths: Sequence[int], dropout: float) -> nn.Sequential:
    return nn.Sequential(OrderedDict(encoder=_Encoder(widths, dropout), decoder=_Decoder(widths, dropout)))


def _level(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    from monai.networks.blocks import Convolution

    return nn.Sequential(
        Convolution(2, inputs, outputs, norm=None, act="relu", dropout=dropout, adn_ordering="AD"),
        Convolution(2, outputs, outputs, norm=None, act="relu", adn_ordering="A"),
    )


def _draw_weights_(model: nn.Module) -> None:
    """He et al. 2015, normal: without normalisation the layers' default would fade over the depth; biases zero.

    The variance is 2 / fan-in where a ReLU follows and 1 / fan-in where none does. A transposed convolution with a
    2x2 kernel and stride 2 reads every input channel once per pixel.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        rectified = module.kernel_size == (3, 3)
        fan_in = module.in_channels * (9 if rectified else 1)
        nn.init.normal_(module.weight, std=((2 if rectified else 1) / fan_in) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _require(widths: Sequence[int], dropout: float) -> None:
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(
            f"the widths {list(widths)} were given; a U-Net needs two levels or more of 1 channel or more."
        )
    if not 0 <= dropout < 1:
        raise InputError(f"a dropout of {dropout} was given; it is a share of activations in [0, 1).")
