"""Random U-Net-like networks in 2D and 3D, of the operators that segmentation networks are made of.

A `Recipe` is drawn, by Hypothesis or from a plain seed, and `build` makes the network. Every choice lists its simplest
option first, so that a failing network shrinks to a small one.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Choose = Callable[[Sequence[Any]], Any]  # any of the options

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVG_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}

_NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda dims, width: nn.Identity(),
    "batch": lambda dims, width: _BATCH_NORM[dims](width),
    "instance": lambda dims, width: _INSTANCE_NORM[dims](width),
    "instance affine": lambda dims, width: _INSTANCE_NORM[dims](width, affine=True),
    "group": lambda dims, width: nn.GroupNorm(width // 2, width),
}

_ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda width: nn.ReLU(),
    "relu in place": lambda width: nn.ReLU(inplace=True),
    "leaky relu in place": lambda width: nn.LeakyReLU(0.1, inplace=True),
    "gelu": lambda width: nn.GELU(),
    "silu": lambda width: nn.SiLU(),
    "prelu": lambda width: nn.PReLU(),
    "prelu per channel": lambda width: nn.PReLU(width),
}


@dataclass(frozen=True)
class Style:
    """What all layers of a network have in common."""

    dims: int
    norm: str
    activation: str

    def conv(self, width_in: int, width_out: int, size: int = 3, **options: int) -> nn.Module:
        """A convolution that keeps the sides."""
        return _CONV[self.dims](width_in, width_out, size, padding=size // 2, **options)

    def layer(self, width_in: int, width_out: int, size: int = 3, **options: int) -> nn.Sequential:
        """Convolution, norm, activation."""
        norm, active = _NORMS[self.norm](self.dims, width_out), _ACTIVATIONS[self.activation](width_out)
        return nn.Sequential(self.conv(width_in, width_out, size, **options), norm, active)


class Sum(nn.Module):
    """A residual connection; in place, or scaled per channel."""

    def __init__(self, body: nn.Module, *, in_place: bool = False, scale: Tensor | None = None) -> None:
        super().__init__()
        self.body, self.in_place = body, in_place
        self.scale = None if scale is None else nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        if self.scale is not None:
            out = self.scale * out
        if self.in_place:
            out += x
            return out
        return x + out


class Gate(nn.Module):
    """A product with weights made from the input: one per channel, one per position."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.body(x))


class LinearGate(nn.Module):
    """Squeeze and excitation by linear layers on the mean over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.excite(F.relu(self.squeeze(x.flatten(2).mean(2))))
        return x * weights.sigmoid().reshape(*weights.shape, *(1,) * (x.ndim - 2))


class Dense(nn.Module):
    """A concatenation of the input with what becomes of it."""

    def __init__(self, body: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.body, self.merge = body, merge

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([x, self.body(x)], dim=1))


class Halves(nn.Module):
    """Two halves of the channels take different ways."""

    def __init__(self, left: nn.Module, right: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.left, self.right, self.merge = left, right, merge

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return self.merge(torch.cat([self.right(right), self.left(left)], dim=1))


class GatedHalf(nn.Module):
    """A gated linear unit."""

    def __init__(self, widen: nn.Module) -> None:
        super().__init__()
        self.widen = widen

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.widen(x).chunk(2, dim=1)
        return values * torch.sigmoid(gates)


class Shuffle(nn.Module):
    """Channels of two convolution groups change places between two grouped convolutions."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.reshape(len(x), 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return self.second(x)


class Twice(nn.Module):
    """One module, called twice, under two names."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = self.again = body

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.body(x))


class Functional(nn.Module):
    """A convolution without a module of its own."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(width, width, *(1,) * dims) / width)

    def forward(self, x: Tensor) -> Tensor:
        return (F.conv2d if x.ndim == 4 else F.conv3d)(x, self.kernel)


class Moved(nn.Module):
    """Positions are padded, shifted, mirrored and cropped on a residual way."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        dims = x.ndim - 2
        moved = torch.roll(F.pad(x, (1, 1) * dims), 1, -1).flip(2)
        return x + self.body(moved[(..., *[slice(1, -1)] * dims)])


class Stacked(nn.Module):
    """Two ways side by side in a dimension of their own, of which the mean is taken."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.left(x), self.right(x)], dim=1).mean(1)


class Finer(nn.Module):
    """Channels become positions, of which the mean is taken."""

    def __init__(self, widen: nn.Module) -> None:
        super().__init__()
        self.widen = widen

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pixel_shuffle(self.widen(x), 2), 2)


class Transformer(nn.Module):
    """Attention and a multi-layer perceptron over all positions, by torch's attention or written by hand."""

    def __init__(self, width: int, *, by_hand: bool) -> None:
        super().__init__()
        self.num_heads, self.depth, self.by_hand = 4, 2, by_hand
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * 4 * 2), nn.Linear(4 * 2, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm1(tokens)).reshape(len(x), -1, 3, self.num_heads, self.depth)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.by_hand:
            attended = ((q @ k.transpose(-2, -1)) * self.depth**-0.5).softmax(-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.out(attended.transpose(1, 2).flatten(2))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)


def _bottleneck(style: Style, width: int) -> nn.Module:
    half = width // 2
    body = nn.Sequential(style.layer(width, half, 1), style.layer(half, half), style.conv(half, width, 1))
    return nn.Sequential(Sum(body), _ACTIVATIONS[style.activation](width))


def _squeeze_excite(style: Style, width: int) -> nn.Module:
    pool = _GLOBAL_POOL[style.dims](1)
    return Gate(nn.Sequential(pool, style.conv(width, 4, 1), nn.ReLU(), style.conv(4, width, 1)))


BLOCKS: dict[str, Callable[[Style, int], nn.Module]] = {  # each keeps the width and the sides
    "nothing": lambda style, width: nn.Identity(),
    "plain": lambda style, width: style.layer(width, width),
    "residual": lambda style, width: Sum(nn.Sequential(style.layer(width, width), style.conv(width, width))),
    "residual in place": lambda style, width: Sum(
        nn.Sequential(style.layer(width, width), style.conv(width, width, 1)), in_place=True
    ),
    "layer scale": lambda style, width: Sum(
        style.layer(width, width), scale=torch.full((1, width, *(1,) * style.dims), 0.5)
    ),
    "bottleneck": _bottleneck,
    "depthwise separable": lambda style, width: nn.Sequential(
        style.layer(width, width, groups=width), style.layer(width, width, 1)
    ),
    "depthwise multiplier": lambda style, width: nn.Sequential(
        style.conv(width, 2 * width, groups=width), style.layer(2 * width, width, 1)
    ),
    "grouped": lambda style, width: style.layer(width, width, groups=2),
    "squeeze excite": _squeeze_excite,
    "linear gate": lambda style, width: LinearGate(width),
    "spatial gate": lambda style, width: Gate(style.conv(width, 1)),
    "dense": lambda style, width: Dense(style.layer(width, 4), style.layer(width + 4, width, 1)),
    "concat twice": lambda style, width: Dense(nn.Tanh(), style.layer(2 * width, width, 1)),
    "halves": lambda style, width: Halves(
        style.layer(width // 2, width // 2), nn.Identity(), style.layer(width, width, 1)
    ),
    "gated half": lambda style, width: GatedHalf(style.conv(width, 2 * width)),
    "channel shuffle": lambda style, width: Shuffle(
        style.layer(width, width, 1, groups=2), style.layer(width, width, groups=2)
    ),
    "twice": lambda style, width: Twice(style.layer(width, width)),
    "functional": lambda style, width: Functional(style.dims, width),
    "weight norm": lambda style, width: nn.Sequential(
        parametrizations.weight_norm(style.conv(width, width)), _ACTIVATIONS[style.activation](width)
    ),
    "moved": lambda style, width: Moved(style.layer(width, width)),
    "stacked": lambda style, width: Stacked(style.layer(width, width), style.conv(width, width, 1)),
    "dropout": lambda style, width: nn.Sequential(_DROPOUT[style.dims](0.2), style.layer(width, width, 1)),
    "transformer": lambda style, width: Transformer(width, by_hand=False),
    "transformer by hand": lambda style, width: Transformer(width, by_hand=True),
    "pixel shuffle": lambda style, width: Finer(style.conv(width, 4 * width)),
}
_IN_2D = ("pixel shuffle",)
_AT_THE_BOTTOM = ("transformer", "transformer by hand")  # attention over all positions of the finer levels takes long

_DOWN: dict[str, Callable[[Style, int, int], nn.Module]] = {
    "strided": lambda style, width, wider: style.layer(width, wider, stride=2),
    "max pool": lambda style, width, wider: nn.Sequential(_MAX_POOL[style.dims](2), style.layer(width, wider)),
    "average pool": lambda style, width, wider: nn.Sequential(_AVG_POOL[style.dims](2), style.layer(width, wider)),
    "pixel unshuffle": lambda style, width, wider: nn.Sequential(
        nn.PixelUnshuffle(2), style.layer(4 * width, wider, 1)
    ),
}

_UP: dict[str, Callable[[Style, int, int], nn.Module]] = {
    "transposed": lambda style, width, narrower: _TRANSPOSED[style.dims](width, narrower, 2, stride=2),
    "nearest": lambda style, width, narrower: nn.Sequential(nn.Upsample(scale_factor=2), style.layer(width, narrower)),
    "linear": lambda style, width, narrower: nn.Sequential(
        nn.Upsample(scale_factor=2, mode={2: "bilinear", 3: "trilinear"}[style.dims]), style.conv(width, narrower, 1)
    ),
    "pixel shuffle": lambda style, width, narrower: nn.Sequential(
        style.conv(width, 4 * narrower, 1), nn.PixelShuffle(2)
    ),
}


class Skip(nn.Module):
    """What a decoder level reads of the encoder: concatenated, added, or weighted by an attention gate first."""

    def __init__(self, kind: str, style: Style, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind != "add":
            self.merge = style.layer(2 * width, width)
        if kind == "attention":
            self.query, self.key = style.conv(width, 4, 1), style.conv(width, 4, 1)
            self.weight = style.conv(4, 1, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if self.kind == "add":
            return x + skip
        if self.kind == "attention":
            skip = skip * torch.sigmoid(self.weight(F.relu(self.query(x) + self.key(skip), inplace=True)))
        return self.merge(torch.cat([x, skip], dim=1))


@dataclass(frozen=True)
class Level:
    """One resolution of the encoder, and the way down from it and up to it."""

    width: int
    encoder: str
    down: str
    up: str
    skip: str
    decoder: str


@dataclass(frozen=True)
class Recipe:
    """A whole network.

    Attributes:
        style: dimensions, norm and activation.
        levels: from the finest on.
        bottom: the width and the block below the last level.
        outputs: ``tensor``, ``dict`` with a second head, ``unused head`` or ``deep`` for one more head per level in
            train mode.
        side: of the square or cubic input of three channels.
    """

    style: Style
    levels: tuple[Level, ...]
    bottom: tuple[int, str]
    outputs: str
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch."""
        return (3, *(self.side,) * self.style.dims)

    def parts(self) -> set[str]:
        """What it is made of, each kind once."""
        blocks = {self.bottom[1], *(block for level in self.levels for block in (level.encoder, level.decoder))}
        ways = {f"{kind}: {getattr(level, kind)}" for level in self.levels for kind in ("down", "up", "skip")}
        style = {f"{self.style.dims}D", f"norm: {self.style.norm}", f"activation: {self.style.activation}"}
        return {*style, *ways, *(f"block: {block}" for block in blocks), f"outputs: {self.outputs}"}


_SKIPS = ("cat", "add", "attention")
_OUTPUTS = ("tensor", "dict", "unused head", "deep")
PARTS = {
    "2D", "3D", *(f"norm: {name}" for name in _NORMS), *(f"activation: {name}" for name in _ACTIVATIONS),
    *(f"down: {name}" for name in _DOWN), *(f"up: {name}" for name in _UP), *(f"skip: {name}" for name in _SKIPS),
    *(f"block: {name}" for name in BLOCKS), *(f"outputs: {name}" for name in _OUTPUTS),
}  # fmt: skip


class RandomUNet(nn.Module):
    """The network of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        style, levels, (bottom, block) = recipe.style, recipe.levels, recipe.bottom
        wider = [*(level.width for level in levels[1:]), bottom]
        self.outputs = recipe.outputs
        self.stem = style.layer(3, levels[0].width)
        self.encoder = nn.ModuleList([BLOCKS[level.encoder](style, level.width) for level in levels])
        self.down = nn.ModuleList(
            [_DOWN[level.down](style, level.width, below) for level, below in zip(levels, wider, strict=True)]
        )
        self.bottom = BLOCKS[block](style, bottom)
        self.up = nn.ModuleList(
            [_UP[level.up](style, below, level.width) for level, below in zip(levels, wider, strict=True)]
        )
        self.skip = nn.ModuleList([Skip(level.skip, style, level.width) for level in levels])
        self.decoder = nn.ModuleList([BLOCKS[level.decoder](style, level.width) for level in levels])
        self.heads = nn.ModuleList([style.conv(level.width, 2, 1) for level in levels])
        self.second = style.conv(levels[0].width, 1, 1)

    def forward(self, x: Tensor) -> Any:  # a tensor, a list or a dictionary of some
        x = self.stem(x)
        skips, found = [], []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.skip[level](self.up[level](x), skips[level]))
            if self.outputs == "deep" and self.training and level:
                found.append(self.heads[level](x))
        result = self.heads[0](x)
        if self.outputs == "dict":
            return {"classes": result, "edges": (self.second(x),)}
        if self.outputs == "unused head":
            self.second(x)
        return [result, *found] if found else result


def build(recipe: Recipe, *, seed: int = 0) -> nn.Module:
    """The freshly initialised network of ``recipe``; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RandomUNet(recipe)


def random_recipe(seed: int, *, small: bool = False) -> Recipe:
    """A recipe from a plain seed, every option equally likely; a small one has one level and an empty decoder."""
    return _choose_recipe(random.Random(seed).choice, small=small)


@st.composite
def small_recipes(draw: Callable[[Any], Any]) -> Recipe:  # Hypothesis' own types
    """Small recipes by Hypothesis, which shrinks what fails."""
    return _choose_recipe(lambda options: draw(st.sampled_from(options)), small=True)


def _choose_recipe(choose: Choose, *, small: bool) -> Recipe:
    dims = choose((2, 2, 3))
    style = Style(dims, choose(tuple(_NORMS)), choose(tuple(_ACTIVATIONS)))
    flat = dims == 2
    anywhere = tuple(name for name in BLOCKS if (flat or name not in _IN_2D) and name not in _AT_THE_BOTTOM)
    below = (*anywhere, *_AT_THE_BOTTOM * 3)  # nowhere else is attention drawn
    levels = tuple(
        Level(
            width=choose((4, 8, 12)),
            encoder=choose(anywhere),
            down=choose(tuple(_DOWN)[: 4 if flat else 3]),
            up=choose(tuple(_UP)[: 4 if flat else 3]),
            skip=choose(_SKIPS),
            decoder="nothing" if small else choose(anywhere),
        )
        for _ in range(1 if small else choose((1, 2)))
    )
    bottom = (choose((8, 12, 16)), choose(below))
    outputs = choose(_OUTPUTS)
    return Recipe(style, levels, bottom, outputs, side=16 if small or not flat else choose((16, 32)))
