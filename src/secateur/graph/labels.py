"""One label per channel: labels that must leave together are united, those that must stay are pinned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.graph.records import Approximation, Role

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Reason:
    """Why a label is pinned, and the module in which that was seen."""

    module: str
    text: str


class LabelSpace:
    """Labels as a union-find forest, and the dimensions of parameters that carry them.

    A *slot* is one dimension of one parameter or buffer; each of its indices has exactly one label. Several calls
    of a shared module meet in the same slots, which is what unites them.
    """

    def __init__(self) -> None:
        self._parents: Labels = np.arange(0, dtype=np.int64)
        self._count = 0
        self._pending: list[tuple[Labels, Labels]] = []
        self._slots: dict[tuple[str, int], tuple[Role, Labels]] = {}
        self._channels: dict[tuple[str, int], int] = {}
        self._pins: list[tuple[Labels, Reason]] = []
        self._spread: list[Labels] = []
        self._approximations: dict[str, Approximation] = {}

    def fresh(self, count: int) -> Labels:
        """``count`` new labels."""
        self._count += count
        return np.arange(self._count - count, self._count, dtype=np.int64)

    def slot(self, tensor: str, dim: int, role: Role, size: int) -> Labels:
        """The labels along dimension ``dim`` of ``tensor``, made on first use."""
        if (tensor, dim) not in self._slots:
            self._slots[tensor, dim] = (role, self.fresh(size))
        return self._slots[tensor, dim][1]

    def stands_for(self, tensor: str, dim: int, channels: int) -> None:
        """Record that every index of a slot stands for so many channels, as those of a grouped convolution do."""
        self._channels[tensor, dim] = channels

    def channels(self, tensor: str, dim: int) -> int:
        """How many channels an index of a slot stands for."""
        return self._channels.get((tensor, dim), 1)

    def slots(self) -> Iterable[tuple[str, int, Role, Labels]]:
        """Every slot with the representative labels of its indices, in the order of first use."""
        for (tensor, dim), (role, labels) in self._slots.items():
            yield tensor, dim, role, self.representatives(labels)

    def unite(self, first: Labels, second: Labels) -> None:
        """Tie the labels of two arrays of one shape, one by one."""
        if first.shape != second.shape:
            raise ValueError(f"cannot tie labels of shape {first.shape} to {second.shape}")
        self._pending.append((first.reshape(-1), second.reshape(-1)))

    def pin(self, labels: Labels, module: str, text: str) -> None:
        """Record that ``labels`` must stay; the first reason given for a label is the one shown."""
        self._pins.append((labels.reshape(-1), Reason(module, text)))

    def spread(self, labels: Labels) -> None:
        """Record a channel that is broadcast over all others: at least one such channel has to stay."""
        self._spread.append(labels.reshape(-1))

    def spread_representatives(self) -> set[int]:
        """The representatives of every channel that is broadcast over others."""
        return {label for labels in self._spread for label in self.representatives(labels).tolist()}

    def approximate(self, norm: str, reason: str) -> None:
        """Record that the norm with the scale ``norm`` takes other statistics when channels that it sees leave."""
        self._approximations[norm] = Approximation(norm, reason)

    def approximations(self) -> dict[str, Approximation]:
        """Every such norm, by the name of its scale."""
        return dict(self._approximations)

    def pins(self) -> dict[int, Reason]:
        """The reason per pinned representative."""
        reasons: dict[int, Reason] = {}
        for labels, reason in self._pins:
            for label in np.unique(self.representatives(labels)).tolist():
                reasons.setdefault(label, reason)
        return reasons

    def representatives(self, labels: Labels) -> Labels:
        """The label that stands for each label's united set, the smallest of them; same shape."""
        self._settle()
        return self._parents[labels]

    def _settle(self) -> None:
        """Work in what was united since: edges pull the larger root to the smaller one until nothing moves."""
        if len(self._parents) < self._count:
            self._parents = np.concatenate([self._parents, np.arange(len(self._parents), self._count, dtype=np.int64)])
        if not self._pending:
            return
        first, second = (np.concatenate(side) for side in zip(*self._pending, strict=True))
        self._pending = []
        while True:
            roots = self._parents[first], self._parents[second]
            if np.array_equal(*roots):
                return
            np.minimum.at(self._parents, np.maximum(*roots), np.minimum(*roots))
            while not np.array_equal(self._parents, hops := self._parents[self._parents]):
                self._parents = hops


@dataclass(frozen=True)
class Channels:
    """What a tensor's elements belong to: ``labels`` has the tensor's rank and broadcasts to its shape.

    A dimension along which the labels do not vary has size 1; channels along dimension 1 of ``(N, C, H, W)`` are
    labels of shape ``(1, C, 1, 1)``, attention heads of ``(N, heads, tokens, C)`` have ``(1, heads, 1, C)``.
    """

    labels: Labels

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions along which the labels vary."""
        return tuple(dim for dim, size in enumerate(self.labels.shape) if size > 1)


@dataclass(frozen=True)
class ParameterValue:
    """A parameter or buffer of the network, by its first qualified name."""

    name: str
    shape: tuple[int, ...]


Value = Channels | ParameterValue | None | Sequence["Value"]
"""What is known of a value in the graph: labelled channels, a parameter, nothing (no labels), or several."""


def along(labels: Labels, dim: int, rank: int) -> Labels:
    """A line of labels as those of a tensor of ``rank`` dimensions that vary along ``dim`` only."""
    return labels.reshape(*(-1 if axis == dim else 1 for axis in range(rank)))
