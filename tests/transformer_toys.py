"""Toy networks with attention, views, and channels that become other dimensions: one graph pattern each."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toys import Network, Toy

HEADS, HEAD_DIM, TOKENS = 3, 2, 64


class GroupNormed(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.plain = nn.GroupNorm(3, 6), nn.GroupNorm(3, 6, affine=False)

    def middle(self, x: Tensor) -> Tensor:
        return self.plain(F.relu(self.norm(x)))


class ChannelGates(Toy):
    """CBAM: a map of the mean and the maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.conv = nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.conv(x * torch.sigmoid(self.attention(pooled)))


class ResponseNorm(Toy):
    """Global response normalisation: each channel is weighed against the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)
        self.scale = nn.Parameter(torch.rand(1, 6, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        length = x.norm(p=2, dim=(2, 3), keepdim=True)
        return self.conv(x + self.scale * x * length / (length.mean(1, keepdim=True) + 1e-6))


class PixelShuffled(Toy):
    def __init__(self) -> None:
        super().__init__(width=2)
        self.up = nn.Conv2d(6, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.up(x), 2)


class PixelShuffledByHand(PixelShuffled):
    def middle(self, x: Tensor) -> Tensor:
        x = self.up(x)
        n, c, h, w = x.shape
        return x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


class PixelUnshuffled(Toy):
    def __init__(self) -> None:
        super().__init__(width=24)

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(F.relu(x), 2)


class ChunkedGate(Toy):
    def __init__(self) -> None:
        super().__init__(width=2)
        self.conv = nn.Conv2d(6, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        values, gates = self.conv(x).chunk(2, dim=1)
        return F.glu(values * torch.sigmoid(gates), dim=1)


class HalvesApart(Toy):
    """Each half of the channels goes another way."""

    def __init__(self) -> None:
        super().__init__(width=4)
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.left(x[:, : x.shape[1] // 2]) + self.right(x[:, x.shape[1] // 2 :]))


class UnevenParts(Toy):
    """Parts of fixed sizes go different ways."""

    def __init__(self) -> None:
        super().__init__(width=4)
        self.left, self.right = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        left, right = x.split((2, 4), dim=1)
        return F.relu(self.left(left) + self.right(right))


class Shuffled(Toy):
    """Channels of two blocks take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return self.conv(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class SplitAttention(Toy):
    """Two radices are weighed against each other by a softmax and added."""

    def __init__(self) -> None:
        super().__init__(width=4)
        self.conv, self.weigh = nn.Conv2d(6, 8, 1), nn.Conv2d(4, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        parts = x.view(len(x), 2, -1, *x.shape[2:])
        weights = self.weigh(parts.sum(1).mean((2, 3), keepdim=True)).view(len(x), 2, -1, 1, 1)
        return (parts * weights.softmax(1)).sum(1)


class PaddedChannels(Toy):
    """A residual connection to a wider layer, whose first and last channel get nothing."""

    def __init__(self) -> None:
        super().__init__(width=8)
        self.conv = nn.Conv2d(6, 8, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(x)) + F.pad(x, (0, 0, 0, 0, 1, 1))


class Moved(Toy):
    """Flips, shifts, repetitions, crops and padding of positions, and channels in another order."""

    def __init__(self) -> None:
        super().__init__(width=12)

    def middle(self, x: Tensor) -> Tensor:
        x = torch.roll(x.flip(1, 2), (2, 1), (2, 3)).repeat(1, 2, 1, 1)
        x = F.pad(x[:, :, 1:-1], (0, 0, 1, 1), mode="replicate")
        return torch.stack([x, x.repeat_interleave(2, 2)[:, :, ::2]]).unbind(0)[1]


class TransposedDepthwise(Toy):
    def __init__(self) -> None:
        super().__init__(width=12)
        self.up = nn.ConvTranspose2d(6, 12, 2, stride=2, groups=6)

    def middle(self, x: Tensor) -> Tensor:
        return self.up(F.relu(x))


class StandardisedKernel(Toy):
    """The kernel is computed from a parameter at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 6, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(x), self.kernel - self.kernel.mean((1, 2, 3), keepdim=True))


class Fourier(Toy):
    """An operator without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(torch.fft.fft2(x).real)


class Tokens(nn.Module):
    """Image to 64 tokens of ``width``, ``mix`` of the subclass, and back to a map."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed, self.last = nn.Conv2d(3, width, 1), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(self.embed(x).flatten(2).transpose(1, 2))
        return self.last(tokens).transpose(1, 2).reshape(len(x), 1, *x.shape[2:])


class Perceptron(Tokens):
    """A learned position embedding, a hidden width and a product with a free weight."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, TOKENS, 6))
        self.up, self.down = nn.Linear(6, 8), nn.Parameter(torch.randn(8, 6))

    def mix(self, x: Tensor) -> Tensor:
        return F.gelu(self.up(x + self.position)) @ self.down


class Attention(Tokens):
    """A transformer block as in ViT: queries and keys normalised per head, values by ``softmax(qk)``, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.norm, self.norm_mlp = nn.LayerNorm(6), nn.LayerNorm(6)
        self.qkv, self.proj = nn.Linear(6, 3 * HEADS * HEAD_DIM), nn.Linear(HEADS * HEAD_DIM, 6)
        self.q_norm = nn.LayerNorm(HEAD_DIM)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((self.q_norm(q) @ k.transpose(-2, -1)) * HEAD_DIM**-0.5).softmax(-1) @ v

    def mix(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.num_heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        x = x + self.proj(self.attend(q, k, v).transpose(1, 2).reshape(n, t, -1))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class FusedAttention(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class EinsumAttention(Tokens):
    """Three projections, heads in the last but one dimension, and einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v = (nn.Linear(6, HEADS * HEAD_DIM, bias=False) for _ in range(3))
        self.proj = nn.Linear(HEADS * HEAD_DIM, 6)

    def mix(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k)
        return x + self.proj(torch.einsum("bhnm, bmhd -> bnhd", scores.softmax(-1), v).flatten(2))


class BatchedHeads(EinsumAttention):
    """Heads join the batch, as in ``nn.MultiheadAttention``."""

    def mix(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (
            layer(x).reshape(n, t, self.heads, HEAD_DIM).transpose(1, 2).reshape(n * self.heads, t, HEAD_DIM)
            for layer in (self.q, self.k, self.v)
        )
        mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return self.proj(mixed.view(n, self.heads, t, HEAD_DIM).transpose(1, 2).reshape(n, t, -1))


class WindowAttention(Tokens):
    """Swin: shifted windows of 4 x 4 and a table of relative positions per head."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(6, 3 * HEADS * HEAD_DIM), nn.Linear(HEADS * HEAD_DIM, 6)
        self.table = nn.Parameter(torch.randn(49, HEADS))
        places = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        apart = places[:, None] - places[None] + 3
        self.register_buffer("index", apart[..., 0] * 7 + apart[..., 1])

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.reshape(-1)].reshape(t, t, -1).permute(2, 0, 1)
        scores = (q @ k.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(n, t, -1))

    def mix(self, x: Tensor) -> Tensor:
        n, _, c = x.shape
        shifted = torch.roll(x.view(n, 8, 8, c), (-2, -2), (1, 2))
        windows = shifted.view(n, 2, 4, 2, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        mixed = self.attend(windows).view(n, 2, 2, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, 8, 8, c)
        return x + torch.roll(mixed, (2, 2), (1, 2)).reshape(n, 64, c)


class WidthOfTheStream(WindowAttention):
    """The size of a head is computed from the width of what comes in, which another layer reads as well."""

    def attend(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        return self.proj((qkv[0] @ qkv[1].transpose(-2, -1) @ qkv[2]).transpose(1, 2).reshape(n, t, c))


class PatchMerging(nn.Module):
    """Four strided slices are joined along the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.reduction = nn.Conv2d(3, 6, 1), nn.Linear(24, 4, bias=False)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = torch.cat([x[:, i::2, j::2] for i in range(2) for j in range(2)], -1)
        return self.last(self.reduction(x)).movedim(-1, 1)


class ChannelAttention(Toy):
    """Channels attend to channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        mixed = (flat @ flat.transpose(1, 2)).softmax(-1) @ flat
        return self.conv(mixed.view_as(x))


class TorchAttention(Tokens):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, HEADS, batch_first=True)

    def mix(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Flattened(nn.Module):
    """A fully connected layer reads every position of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.classes = nn.Conv2d(3, 6, 1), nn.Linear(6 * TOKENS, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(F.relu(self.hidden(F.relu(self.conv(x)).flatten(1))))


_IMAGE = ((3, 8, 8),)

TRANSFORMERS: dict[str, Network] = {
    "group_normed": Network(GroupNormed, _IMAGE),
    "channel_gates": Network(ChannelGates, _IMAGE),
    "response_norm": Network(ResponseNorm, _IMAGE),
    "pixel_shuffled": Network(PixelShuffled, _IMAGE),
    "pixel_shuffled_by_hand": Network(PixelShuffledByHand, _IMAGE),
    "pixel_unshuffled": Network(PixelUnshuffled, _IMAGE),
    "chunked_gate": Network(ChunkedGate, _IMAGE),
    "halves_apart": Network(HalvesApart, _IMAGE),
    "uneven_parts": Network(UnevenParts, _IMAGE),
    "shuffled": Network(Shuffled, _IMAGE),
    "split_attention": Network(SplitAttention, _IMAGE),
    "padded_channels": Network(PaddedChannels, _IMAGE),
    "moved": Network(Moved, _IMAGE),
    "transposed_depthwise": Network(TransposedDepthwise, _IMAGE),
    "standardised_kernel": Network(StandardisedKernel, _IMAGE),
    "fourier": Network(Fourier, _IMAGE),
    "perceptron": Network(Perceptron, _IMAGE),
    "attention": Network(Attention, _IMAGE),
    "fused_attention": Network(FusedAttention, _IMAGE),
    "einsum_attention": Network(EinsumAttention, _IMAGE),
    "batched_heads": Network(BatchedHeads, _IMAGE),
    "window_attention": Network(WindowAttention, _IMAGE),
    "width_of_the_stream": Network(WidthOfTheStream, _IMAGE),
    "patch_merging": Network(PatchMerging, _IMAGE),
    "channel_attention": Network(ChannelAttention, _IMAGE),
    "torch_attention": Network(TorchAttention, _IMAGE),
    "flattened": Network(Flattened, _IMAGE),
}
