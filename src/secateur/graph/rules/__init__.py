"""What each operator does to channel labels: one visible table. A new operator is one function and one line."""

from collections.abc import Mapping

from secateur.graph.group_norm import GroupNormMode
from secateur.graph.rules.arithmetic import pointwise
from secateur.graph.rules.concatenation import concatenation, stacking
from secateur.graph.rules.contraction import attention, batched_sum, einsum, matmul
from secateur.graph.rules.convolution import convolution, transposed_convolution
from secateur.graph.rules.elementwise import alike, no_channels, prelu, renamed
from secateur.graph.rules.linear import linear
from secateur.graph.rules.normalization import (
    channel_norm,
    group_norm,
    group_norm_evenly,
    layer_norm,
    weight_norm,
)  # fmt: skip
from secateur.graph.rules.pixels import channel_shuffle, pixel_shuffle, pixel_unshuffle
from secateur.graph.rules.reduction import reduction, weighing
from secateur.graph.rules.repetition import broadcast, expand, repeat_interleave, tile
from secateur.graph.rules.selection import (
    embedding,
    flip,
    gated_half,
    index,
    index_select,
    roll,
    select,
    slice_,
    split,
    unbind,
)  # fmt: skip
from secateur.graph.rules.shaping import move_dimensions, permute, reshape, transpose
from secateur.graph.rules.spatial import grid_sampling, padding, spatial
from secateur.graph.walk import Rule

_POINTWISE = (  # of one tensor or several, each element by itself
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "bernoulli",
    "celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "mish",
    "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "tanh", "threshold",
    "abs", "ceil", "clamp", "clamp_max", "clamp_min", "cos", "erf", "exp", "expm1", "floor", "fmod", "frac", "log",
    "log1p", "nan_to_num", "neg", "pow", "reciprocal", "remainder", "round", "rsqrt", "sign", "sin", "sqrt", "square",
    "tan", "trunc", "isfinite", "isinf", "isnan",
    "add", "sub", "rsub", "mul", "multiply", "div", "divide", "true_divide", "floor_divide", "subtract",
    "addcdiv", "addcmul", "atan2", "lerp", "maximum", "minimum", "masked_fill", "where", "copy", "fill", "zero",
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_not", "logical_or", "logical_xor",
    "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "__and_", "__or_", "__xor_",
)  # fmt: skip

_RENAMED = ("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "_to_copy", "to", "type_as", "requires_grad")

_POOLED = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest",
           "_upsample_nearest_exact", "reflection_pad", "replication_pad")  # fmt: skip
_RESIZED = ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
            "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")  # fmt: skip
_SPATIAL = (
    *(f"{kind}{dims}d" for kind in _POOLED for dims in (1, 2, 3)),
    *(f"max_pool{dims}d_with_indices" for dims in (1, 2, 3)),
    *_RESIZED,
)

_CREATED = (
    "arange", "empty", "eye", "full", "linspace", "meshgrid", "new_empty", "new_full", "new_ones", "new_zeros", "ones",
    "rand", "randint", "randn", "randperm", "scalar_tensor", "zeros",
    "_assert_tensor_metadata", "sym_size", "_assert_async",
)  # fmt: skip
_ALIKE = ("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like")

_RESHAPED = ("reshape", "view", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze")

_REDUCED = ("mean", "sum", "nansum", "prod", "amax", "amin", "max", "min", "var", "std", "norm",
            "linalg_vector_norm", "logsumexp", "all", "any", "argmax", "argmin", "median")  # fmt: skip
_WEIGHED = ("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "argsort")

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(_RENAMED, renamed),
    **dict.fromkeys(_SPATIAL, spatial),
    **dict.fromkeys(_CREATED, no_channels),
    **dict.fromkeys(_ALIKE, alike),
    **dict.fromkeys(_RESHAPED, reshape),
    **dict.fromkeys(_REDUCED, reduction),
    **dict.fromkeys(_WEIGHED, weighing),
    **{f"conv{dims}d": convolution for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": transposed_convolution for dims in (1, 2, 3)},
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), batched_sum),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("batch_norm", "instance_norm"), channel_norm),
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "_weight_norm": weight_norm,
    "prelu": prelu,
    "cat": concatenation,
    "concat": concatenation,
    "stack": stacking,
    **dict.fromkeys(("pad", "constant_pad_nd"), padding),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), grid_sampling),
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t", "numpy_T"), transpose),
    **dict.fromkeys(("movedim", "moveaxis"), move_dimensions),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    "broadcast_tensors": broadcast,
    **dict.fromkeys(("repeat", "tile"), tile),
    "repeat_interleave": repeat_interleave,
    "select": select,
    **dict.fromkeys(("slice", "narrow"), slice_),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), split),
    "unbind": unbind,
    "glu": gated_half,
    "index": index,
    "index_select": index_select,
    "embedding": embedding,
    "flip": flip,
    "roll": roll,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
}

GROUP_NORMS: Mapping[GroupNormMode, Rule] = {
    GroupNormMode.WHOLE: group_norm,
    GroupNormMode.EVEN: group_norm_evenly,
}
