"""NaN marks whatever changes with the input, operator by operator; the rest is the same for every input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.prune.influence import Influence, InputDependentError

HOLED = torch.tensor([[1.0, 0, 2, 0], [0, 3, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)  # (3, 4)


def in_place(x):
    y = x.clone()
    y[:, 1:3] += 1
    y[:, :2].mul_(0.5).relu_()
    return y


def through_truth(x):
    return torch.where(x > 0, torch.ones_like(x), torch.zeros_like(x))


def through_indices(x):
    values, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(torch.ones_like(values), places, 2)


def einsum(x):
    return torch.einsum("nchw,oc->nohw", x, HOLED)


def attention(x):
    tokens = x.flatten(2).transpose(1, 2)
    return torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens


def multiplied_maps(x):
    """Of two factors that may both depend on the input, one zero stops the other."""
    return torch.bmm(x[:, 0], (x[:, 1] * 0 + 1) * torch.eye(6, dtype=torch.float64))


OPERATORS = {
    "conv": lambda x: F.conv2d(x, HOLED[..., None, None].expand(-1, -1, 3, 3), padding=1),
    "conv_grouped": lambda x: F.conv2d(x, HOLED[:2, :2, None, None], groups=2),
    "conv_transpose": lambda x: F.conv_transpose2d(x, HOLED.T[..., None, None].expand(-1, -1, 2, 2), stride=2),
    "conv_of_itself": lambda x: F.conv2d(x, x[:, :, :3, :3]),
    "linear": lambda x: F.linear(x.movedim(1, -1), HOLED, torch.ones(3, dtype=torch.float64)),
    "matmul": lambda x: x.movedim(1, -1) @ HOLED.T,
    "einsum": einsum,
    "attention": attention,
    "multiplied_maps": multiplied_maps,
    "flash_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "threshold": lambda x: F.threshold(x, 0, 1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)),
    "glu": lambda x: F.glu(x, 1),
    "log_sigmoid": F.logsigmoid,
    "rsub": lambda x: 1 - x,
    "sign": torch.sign,
    "clamp": lambda x: x.clamp(-0.1, 0.1),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "fmax": lambda x: torch.fmax(x, torch.zeros_like(x)),
    "nan_to_num": torch.nan_to_num,
    "round": torch.round,
    "masked_fill": lambda x: x.masked_fill(x > 0, 0),
    "truth": through_truth,
    "to_integers": lambda x: x.long().double(),
    "argmax": lambda x: x.argmax(1, keepdim=True).double(),
    "sort": lambda x: x.sort(1)[0],
    "cumsum": lambda x: x.cumsum(1),
    "in_place": in_place,
    "indices": through_indices,
    "nansum": lambda x: x.nansum((2, 3)),
    "median": lambda x: x.nanmedian(3)[0],
    "batch_norm": lambda x: nn.BatchNorm2d(4, dtype=x.dtype).eval()(x),
    "batch_norm_train": lambda x: nn.BatchNorm2d(4, dtype=x.dtype)(x),
    "instance_norm": lambda x: F.instance_norm(x),
    "group_norm": lambda x: F.group_norm(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "softmax": lambda x: x.softmax(1),
    "local_norm": lambda x: F.local_response_norm(x, 2),
    "sum": lambda x: x.sum((2, 3)),
    "mean": lambda x: x.mean(1),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin(1),
    "var": lambda x: x.var(1),
    "norm": lambda x: torch.linalg.vector_norm(x, 0, dim=1),
    "prod": lambda x: x.prod(1),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "adaptive_max": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive_avg": lambda x: F.adaptive_avg_pool2d(x, 2),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "fractional": lambda x: F.adaptive_avg_pool2d(x, 4),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "area": lambda x: F.interpolate(x, size=4, mode="area"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "antialiased": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
    "grid_sample": lambda x: F.grid_sample(x, torch.zeros(2, 3, 3, 2, dtype=x.dtype), align_corners=False),
    "pad": lambda x: F.pad(x, (1, 1)),
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 2),
    "fft": lambda x: torch.fft.fft(x).abs(),
    "cat": lambda x: torch.cat([x, torch.ones_like(x)], 1),
    "stack": lambda x: torch.stack([x, x]),
    "flip": lambda x: x.flip(2),
    "roll": lambda x: x.roll(1, 1),
    "index": lambda x: x[:, [2, 0]],
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous().flatten(1),
    "half": lambda x: x.float().half().double(),
    "gather": lambda x: x.gather(1, torch.tensor([2, 1]).reshape(1, 2, 1, 1).expand(2, 2, 6, 6)),
    "interleave": lambda x: x.repeat_interleave(2, 1),
}


def place(reached, seed):
    """Numbers that differ with ``seed`` at the reached elements only, among them large ones."""
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(reached, noise * 10 ** (seed % 3), x)


@pytest.mark.parametrize("name", OPERATORS)
def test_what_changes_is_marked(name):
    operator = OPERATORS[name]
    everything = torch.ones(2, 4, 6, 6, dtype=torch.bool)
    channel, element = torch.zeros_like(everything), torch.zeros_like(everything)
    channel[:, 1], element[0, 2, 1, 4] = True, True
    for reached in (everything, channel, element):
        results = torch.stack([operator(place(reached, seed)) for seed in range(1, 9)])
        changes = (results != results[0]).any(0)
        given = place(reached, 1).masked_fill(reached, torch.nan)
        with torch.no_grad(), Influence():
            marked = operator(given)
        assert not (changes & ~marked.isnan()).any()
        kept = ~marked.isnan()
        torch.testing.assert_close(marked[kept], results[0][kept], rtol=1e-12, atol=1e-12)


FINE = (
    "conv", "conv_grouped", "conv_transpose", "einsum", "relu", "prelu", "hardswish", "rsub", "in_place", "glu",
    "batch_norm", "batch_norm_train", "instance_norm", "group_norm", "sum", "max_pool", "avg_pool", "adaptive_avg",
    "nearest", "bilinear", "bicubic", "pad", "reflect", "replicate", "circular", "cat", "flip", "roll", "index",
    "gather", "repeat", "pixel_unshuffle", "channel_shuffle",
)  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_channels_that_stay_the_same_are_not_marked(name):
    """What networks are made of leaves the other channels alone; else nothing would ever be constant."""
    operator, reached = OPERATORS[name], torch.zeros(2, 4, 6, 6, dtype=torch.bool)
    reached[:, 1] = True
    results = torch.stack([operator(place(reached, seed)) for seed in range(1, 9)])
    given = place(reached, 1).masked_fill(reached, torch.nan)
    with torch.no_grad(), Influence():
        marked = operator(given)
    changes = (results != results[0]).any(0)
    channels = changes.reshape(*changes.shape[:2], -1).any(-1)
    assert torch.equal(marked.isnan().reshape(*changes.shape[:2], -1).any(-1), channels)
    assert not channels.all()


def test_weights_of_zero_stop_the_input():
    with torch.no_grad(), Influence():
        result = F.conv2d(
            torch.full((1, 4, 5, 5), torch.nan), HOLED.float()[..., None, None], torch.tensor([1.0, 2, 3])
        )
    assert result[:, :2].isnan().all()
    assert (result[:, 2] == 3).all()


@pytest.mark.parametrize("ask", [lambda x: bool(x.mean() > 0), lambda x: x.sum().item(), lambda x: int(x.argmax())])
def test_a_number_asked_for_is_told(ask):
    with torch.no_grad(), Influence(), pytest.raises(InputDependentError):
        ask(torch.full((3,), torch.nan))
    with torch.no_grad(), Influence():
        ask(torch.ones(3))


@pytest.mark.parametrize(
    "ask", [lambda x: (x > 0).nonzero(), lambda x: x[x > 0], lambda x: x.masked_select(x > 0), torch.unique]
)
def test_a_size_that_depends_on_the_input_is_told(ask):
    """Python sees it as a number, and what is made of that would pass for a constant."""
    with torch.no_grad(), Influence(), pytest.raises(InputDependentError):
        ask(torch.full((3,), torch.nan))
    with torch.no_grad(), Influence():
        ask(torch.ones(3))
        picked = torch.full((3, 2), torch.nan)[torch.tensor([0, 2])]
    assert picked.isnan().all()


def test_random_numbers_are_no_constants():
    with torch.no_grad(), Influence():
        drawn = torch.randn(3), torch.zeros(3).bernoulli_(0.5), F.dropout(torch.ones(8), 0.5)
    assert all(numbers.isnan().all() for numbers in drawn)


def test_what_freed_memory_holds_is_no_mark():
    """Memory that is filled after it was taken may have held NaN; PyTorch puts it there when all has to repeat."""
    torch.use_deterministic_algorithms(True)
    try:
        with torch.no_grad(), Influence():
            taken = torch.empty(3), torch.empty_like(torch.ones(3)), torch.full((3,), torch.nan).new_empty(3)
            filled = [memory.fill_(1) for memory in taken]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all((memory == 1).all() for memory in filled)
