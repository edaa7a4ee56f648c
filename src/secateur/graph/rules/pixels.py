"""Channels that become pixels and back, and channels that are shuffled."""

import numpy as np

from secateur.graph.labels import Channels, Labels, Value, along
from secateur.graph.walk import Call


def pixel_shuffle(call: Call) -> Value:
    """``r * r`` neighbouring channels become one of r times the sides: they leave together."""
    factor = int(call.constant("upscale_factor")) ** 2
    blocks = call.line("self", len(call.shape("self")) - 3).reshape(-1, factor)
    call.space.unite(np.broadcast_to(blocks[:, :1], blocks.shape), blocks)
    return _channels(call, blocks[:, 0])


def pixel_unshuffle(call: Call) -> Value:
    """One channel becomes ``r * r`` neighbouring ones."""
    factor = int(call.constant("downscale_factor")) ** 2
    return _channels(call, call.line("self", len(call.shape("self")) - 3).repeat(factor))


def channel_shuffle(call: Call) -> Value:
    """Channels of all blocks take turns; index k of every block leaves with that of the others."""
    blocks = call.line("self", 1).reshape(int(call.constant("groups")), -1)
    call.space.unite(np.broadcast_to(blocks[:1], blocks.shape), blocks)
    return Channels(along(blocks.T.reshape(-1), 1, len(call.out_shape())))


def _channels(call: Call, labels: Labels) -> Value:
    rank = len(call.out_shape())
    return Channels(along(labels, rank - 3, rank))
