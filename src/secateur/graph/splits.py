"""Channels that a reshape splits into several dimensions: which of them loses indices, and who counts them."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import nn

from secateur.graph.labels import Labels, LabelSpace
from secateur.graph.records import Role
from secateur.graph.walk import Split

HEAD_COUNTS = ("num_heads", "heads", "n_heads", "nheads", "n_head", "num_attention_heads")
_COMPOSED = re.compile(r"\(([^()]*)\)")  # an axis of an einops pattern that is made of several


def settle_splits(space: LabelSpace, splits: Sequence[Split], modules: Mapping[str, nn.Module]) -> None:
    """Make every split lose whole indices of one of its dimensions, and tie the attribute that counts those.

    Attention has united the labels of each head. Where nothing has united anything, as in a shuffle of channels, the
    last dimension, which reshapes compute from the width, is the one that shrinks.
    """
    for split in splits:
        axis = _unit_axis(space.representatives(split.labels))
        if axis is None:
            first = split.labels.reshape(-1, split.labels.shape[-1])[:1]
            rows = split.labels.reshape(-1, split.labels.shape[-1])
            space.unite(np.broadcast_to(first, rows.shape), rows)
            continue
        units = np.moveaxis(split.labels, axis, 0).reshape(split.labels.shape[axis], -1)[:, 0]
        for attribute in _counters(split, axis, modules):
            space.unite(units, space.slot(attribute, 0, Role.WIDTH, len(units)))


def _unit_axis(labels: Labels) -> int | None:
    """The dimension of which each index has one label, another for each; None where there is no such one."""
    for axis in range(labels.ndim):
        rows = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        if len(rows) > 1 and bool((rows == rows[:, :1]).all()) and len(np.unique(rows[:, 0])) == len(rows):
            return axis
    return None


def _counters(split: Split, axis: int, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """The integer attributes that hold the number of heads: of the module, or of an einops layer and its parent."""
    size, path = split.labels.shape[axis], split.module
    lengths = getattr(modules.get(path), "axes_lengths", None)
    if isinstance(lengths, dict):
        for name in _axis_names(str(getattr(modules[path], "pattern", "")), split.labels.ndim, axis):
            if lengths.get(name) == size:
                yield f"{path}.axes_lengths[{name}]"
        path = path.rpartition(".")[0]
    for name in HEAD_COUNTS:
        if getattr(modules.get(path), name, None) == size:
            yield f"{path}.{name}".removeprefix(".")


def _axis_names(pattern: str, count: int, axis: int) -> Iterator[str]:
    """What an einops pattern calls dimension ``axis`` of the ``count`` that it splits one into."""
    for names in _COMPOSED.findall(pattern.partition("->")[0]):
        if len(names.split()) == count:
            yield names.split()[axis]
