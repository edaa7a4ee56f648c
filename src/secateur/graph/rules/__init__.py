"""What each operator does to channel labels: one visible table. A new operator is one function and one line."""

from collections.abc import Mapping

from secateur.graph.rules.arithmetic import arithmetic
from secateur.graph.rules.concatenation import concatenation, stacking
from secateur.graph.rules.convolution import convolution, transposed_convolution
from secateur.graph.rules.elementwise import elementwise, no_channels, prelu
from secateur.graph.rules.linear import linear
from secateur.graph.rules.normalization import channel_norm
from secateur.graph.rules.spatial import padding, spatial
from secateur.graph.walk import Rule

_ELEMENTWISE = (
    "alias", "clone", "contiguous", "detach", "_to_copy", "to",
    "dropout", "feature_dropout", "alpha_dropout",
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "relu", "relu6",
    "selu", "sigmoid", "silu", "softplus", "tanh",
    "abs", "clamp", "exp", "floor", "neg", "sqrt",
)  # fmt: skip

_POOLED = ("max_pool", "avg_pool", "adaptive_avg_pool", "upsample_nearest")
_RESIZED = ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")
_SPATIAL = (*(f"{kind}{dims}d" for kind in _POOLED for dims in (1, 2, 3)), *_RESIZED)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_SPATIAL, spatial),
    **{f"conv{dims}d": convolution for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": transposed_convolution for dims in (1, 2, 3)},
    "linear": linear,
    **dict.fromkeys(("add", "sub", "mul", "div"), arithmetic),
    **dict.fromkeys(("rand", "randn", "zeros", "ones"), no_channels),
    "batch_norm": channel_norm,
    "instance_norm": channel_norm,
    "prelu": prelu,
    "cat": concatenation,
    "stack": stacking,
    "pad": padding,
}
