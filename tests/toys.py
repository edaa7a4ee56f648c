"""Toy networks that each hold one graph pattern."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Network:
    """How to build a network and the shapes of the inputs that it takes."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self, *, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Seeded normal inputs."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(batch, *shape, generator=generator, dtype=dtype) for shape in self.shapes)


class Toy(nn.Module):
    """Three channels in, ``first`` to six, one out of ``last``; in between ``middle`` of the subclass."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Residual(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(x), inplace=True)
        return x + self.conv(x)


class ConcatSkip(Toy):
    def __init__(self) -> None:
        super().__init__(width=10)
        self.conv = nn.Conv2d(6, 4, 3, padding=1, stride=2)
        self.norm = nn.InstanceNorm2d(10, affine=True)

    def middle(self, x: Tensor) -> Tensor:
        low = F.interpolate(self.conv(F.leaky_relu(x)), scale_factor=2.0)
        return F.elu(self.norm(torch.cat([low, x], dim=1)))


class ConcatTwice(Toy):
    def __init__(self) -> None:
        super().__init__(width=12)

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.tanh(x)], dim=1)


class CalledTwice(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.silu(self.conv(F.silu(x))))


class Depthwise(Toy):
    def __init__(self, multiplier: int = 1) -> None:
        super().__init__(width=6 * multiplier)
        self.depthwise = nn.Conv2d(6, 6 * multiplier, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6 * multiplier)

    def middle(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.depthwise(F.gelu(x))))


class Grouped(Toy):
    def __init__(self) -> None:
        super().__init__(width=8)
        self.grouped = nn.Conv2d(6, 8, 3, padding=1, groups=2)

    def middle(self, x: Tensor) -> Tensor:
        return F.mish(self.grouped(F.mish(x)))


class Transposed(Toy):
    def __init__(self, groups: int = 1) -> None:
        super().__init__(width=4)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=groups)

    def middle(self, x: Tensor) -> Tensor:
        return F.softplus(self.up(F.max_pool2d(F.softplus(x), 2)))


class SqueezeExcite(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


class ChannelPReLU(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.PReLU(6)

    def middle(self, x: Tensor) -> Tensor:
        return self.slopes(x)


class LayerScale(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.full((1, 6, 1, 1), 0.5))

    def middle(self, x: Tensor) -> Tensor:
        return x + self.scale * self.conv(F.hardswish(x))


class FunctionalConv(Toy):
    def __init__(self) -> None:
        super().__init__(width=4)
        self.kernel = nn.Parameter(torch.randn(4, 6, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return torch.sigmoid(F.conv2d(weight=self.kernel, input=F.relu(x)))


class ComputedKernel(FunctionalConv):
    """The kernel is not a parameter but made from one."""

    def middle(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(x), torch.tanh(self.kernel))


class SpatialAttention(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Conv2d(6, 1, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.attention(F.relu(x)))


class Stacked(Toy):
    """A stack moves the channels, which a pooling over three dimensions then mixes."""

    def middle(self, x: Tensor) -> Tensor:
        pair = torch.stack([x, torch.relu(x)], dim=1)
        return F.avg_pool3d(pair, (6, 1, 1), stride=1)[:, 0] * x


class LinearHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.hidden, self.classes = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(F.relu(self.hidden(F.adaptive_avg_pool2d(self.conv(x), 1).flatten(1))))


class SoftmaxOverChannels(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(torch.softmax(x, dim=1))


class WidthInReshape(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x.reshape(len(x), 6, 64).reshape(x.shape))


class WidthInScale(Toy):
    """The width of ``first`` becomes a Python number, which no operator shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x / x.shape[1]))


class WidthsTogether(nn.Module):
    """Two widths of which either may shrink, but not both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.left_out, self.right_out = nn.Conv2d(6, 1, 1), nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        if left.shape[1] < 6 and right.shape[1] < 6:
            raise ValueError("too narrow")
        return self.left_out(left) + self.right_out(right)


class WeightNorm(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3, padding=1))
        self.wide = nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.wide(self.conv(x))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.prior = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(1, 4, 1)
        self.last = nn.Conv2d(10, 1, 1)

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        return self.last(F.relu(torch.cat([self.image(image), self.prior(prior)], 1)))


class SeveralOutputs(nn.Module):
    """A dictionary with a tuple and a list in it, and a head for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.mask, self.edge = nn.Conv2d(6, 1, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> dict[str, object]:
        x = F.selu(self.body(x))
        edges = [self.edge(x)] if self.training else []
        return {"mask": self.mask(x), "more": (edges, 1)}


class DeadBranch(Toy):
    """One module that is never called, and one whose result nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.never, self.ignored = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.ignored(x)
        return x


class Aliased(Toy):
    """One convolution under two names and in a list, called once under either name."""

    def __init__(self) -> None:
        super().__init__()
        self.here = nn.Conv2d(6, 6, 3, padding=1)
        self.there = self.here
        self.everywhere = nn.ModuleList([self.here])

    def middle(self, x: Tensor) -> Tensor:
        return self.there(F.relu(self.here(x)))


class SharedNorm(Toy):
    """A norm without parameters, which remembers one width, serves two layers."""

    def __init__(self) -> None:
        super().__init__(width=4)
        self.norm = nn.InstanceNorm2d(6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.narrow = nn.Conv2d(6, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.narrow(self.norm(self.conv(self.norm(x)))))


class LabelMap(Toy):
    """Returns class indices and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(F.relu(self.first(x))).argmax(1)


class DropOut(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.spatial, self.plain = nn.Dropout2d(0.4), nn.Dropout(0.4, inplace=True)

    def middle(self, x: Tensor) -> Tensor:
        return self.plain(self.conv(self.spatial(x)))


class GroupNormBlocks(nn.Module):
    """A residual block, a wider one behind it and a skip, with several channels in most norm groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.norm, self.inner = nn.GroupNorm(3, 12), nn.GroupNorm(3, 12, eps=0.1)
        self.down, self.single, self.free = nn.Conv2d(12, 16, 3, 2, 1), nn.GroupNorm(16, 16), nn.Conv2d(16, 5, 1)
        self.both, self.last = nn.GroupNorm(1, 17), nn.Conv2d(17, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.conv(F.relu(self.inner(F.relu(self.norm(x)))))
        low = self.free(F.relu(self.single(self.down(x))))
        return self.last(self.both(torch.cat([F.interpolate(low, scale_factor=2.0), x], 1)))


_IMAGE = ((3, 8, 8),)

TOYS: dict[str, Network] = {
    "residual": Network(Residual, _IMAGE),
    "concat_skip": Network(ConcatSkip, _IMAGE),
    "concat_twice": Network(ConcatTwice, _IMAGE),
    "called_twice": Network(CalledTwice, _IMAGE),
    "depthwise": Network(Depthwise, _IMAGE),
    "depthwise_multiplier": Network(lambda: Depthwise(multiplier=2), _IMAGE),
    "grouped": Network(Grouped, _IMAGE),
    "transposed": Network(Transposed, _IMAGE),
    "transposed_grouped": Network(lambda: Transposed(groups=2), _IMAGE),
    "squeeze_excite": Network(SqueezeExcite, _IMAGE),
    "channel_prelu": Network(ChannelPReLU, _IMAGE),
    "layer_scale": Network(LayerScale, _IMAGE),
    "functional_conv": Network(FunctionalConv, _IMAGE),
    "computed_kernel": Network(ComputedKernel, _IMAGE),
    "spatial_attention": Network(SpatialAttention, _IMAGE),
    "stacked": Network(Stacked, _IMAGE),
    "linear_head": Network(LinearHead, _IMAGE),
    "softmax_over_channels": Network(SoftmaxOverChannels, _IMAGE),
    "width_in_reshape": Network(WidthInReshape, _IMAGE),
    "width_in_scale": Network(WidthInScale, _IMAGE),
    "widths_together": Network(WidthsTogether, _IMAGE),
    "weight_norm": Network(WeightNorm, _IMAGE),
    "two_inputs": Network(TwoInputs, ((3, 8, 8), (1, 8, 8))),
    "several_outputs": Network(SeveralOutputs, _IMAGE),
    "dead_branch": Network(DeadBranch, _IMAGE),
    "aliased": Network(Aliased, _IMAGE),
    "shared_norm": Network(SharedNorm, _IMAGE),
    "label_map": Network(LabelMap, _IMAGE),
    "drop_out": Network(DropOut, _IMAGE),
    "group_norm_blocks": Network(GroupNormBlocks, _IMAGE),
}
