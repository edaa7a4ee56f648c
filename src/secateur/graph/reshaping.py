"""Labels under a change of shape: dimensions are split and joined, and what joins with a labelled one is bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from secateur.graph.labels import Labels

MAX_EXPANDED = 65536  # labels of one flattened tensor; a linear layer behind more of them would hold GiBs


@dataclass(frozen=True)
class Segment:
    """Neighbouring dimensions before and after a change of shape that hold the same number of elements."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def segments(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[Segment]:
    """The finest division of both shapes into segments of equal size; sizes of one go with what precedes them."""
    i = j = 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        left = right = 1
        while True:
            if left == right and (i > start_i or j > start_j) and left > 1:
                break
            if left <= right and i < len(before):
                left *= before[i]
                i += 1
            elif j < len(after):
                right *= after[j]
                j += 1
            else:
                break
        while left == right and i < len(before) and before[i] == 1:
            i += 1
        while left == right and j < len(after) and after[j] == 1:
            j += 1
        yield Segment(tuple(range(start_i, i)), tuple(range(start_j, j)))


def joins(labels: Labels, before: tuple[int, ...], segment: Segment) -> tuple[int, ...]:
    """The labelled dimensions of a segment that joins them with unlabelled ones."""
    wide = [dim for dim in segment.before if before[dim] > 1]
    labelled = tuple(dim for dim in wide if labels.shape[dim] > 1)
    return labelled if len(labelled) < len(wide) else ()


def reshaped(labels: Labels, before: tuple[int, ...], after: tuple[int, ...]) -> Labels:
    """``labels`` of a tensor of shape ``before`` after its reshape to ``after``."""
    shape: list[int] = []
    full: list[int] = []
    for segment in segments(before, after):
        varies = any(labels.shape[dim] > 1 for dim in segment.before)
        full += [before[dim] if varies else 1 for dim in segment.before]
        shape += [after[dim] if varies else 1 for dim in segment.after]
    spread = np.broadcast_to(labels, [max(size, 1) for size in full]).reshape(shape)
    return constant_dims_dropped(spread)


def expanded_size(labels: Labels, before: tuple[int, ...], segment: Segment) -> int:
    """How many labels a segment holds when it is written out."""
    others: int = prod(labels.shape) // prod(labels.shape[dim] for dim in segment.before)
    return others * prod(before[dim] for dim in segment.before)


def constant_dims_dropped(labels: Labels) -> Labels:
    """``labels`` with size 1 along every dimension along which they do not vary."""
    for dim in range(labels.ndim):
        first = labels.take([0], axis=dim)
        if labels.shape[dim] > 1 and bool((labels == first).all()):
            labels = first
    return labels
