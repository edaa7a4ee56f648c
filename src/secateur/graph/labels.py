"""One label per channel: labels that must leave together are united, those that must stay are pinned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.graph.records import Role

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
        self._parents: list[int] = []
        self._slots: dict[tuple[str, int], tuple[Role, Labels]] = {}
        self._pins: dict[int, Reason] = {}
        self._spread: list[int] = []

    def fresh(self, count: int) -> Labels:
        """``count`` new labels."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def slot(self, tensor: str, dim: int, role: Role, size: int) -> Labels:
        """The labels along dimension ``dim`` of ``tensor``, made on first use."""
        if (tensor, dim) not in self._slots:
            self._slots[tensor, dim] = (role, self.fresh(size))
        return self._slots[tensor, dim][1]

    def slots(self) -> Iterable[tuple[str, int, Role, Labels]]:
        """Every slot with the representative labels of its indices, in the order of first use."""
        for (tensor, dim), (role, labels) in self._slots.items():
            yield tensor, dim, role, self.representatives(labels)

    def unite(self, first: Labels, second: Labels) -> None:
        """Tie the labels of two arrays of equal length, one by one."""
        if len(first) != len(second):
            raise ValueError(f"cannot tie {len(first)} labels to {len(second)}")
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            root_a, root_b = self._find(a), self._find(b)
            if root_a != root_b:
                self._parents[max(root_a, root_b)] = min(root_a, root_b)

    def pin(self, labels: Labels, module: str, text: str) -> None:
        """Record that ``labels`` must stay; the first reason given for a label is the one shown."""
        for label in labels.tolist():
            self._pins.setdefault(label, Reason(module, text))

    def spread(self, labels: Labels) -> None:
        """Record a channel that is broadcast over all others: at least one such channel has to stay."""
        self._spread.extend(labels.tolist())

    def spread_representatives(self) -> set[int]:
        """The representatives of every channel that is broadcast over others."""
        return {self._find(label) for label in self._spread}

    def pins(self) -> dict[int, Reason]:
        """The reason per pinned representative."""
        reasons: dict[int, Reason] = {}
        for label, reason in self._pins.items():
            reasons.setdefault(self._find(label), reason)
        return reasons

    def representatives(self, labels: Labels) -> Labels:
        """The label that stands for each label's united set."""
        return np.array([self._find(label) for label in labels.tolist()], dtype=np.int64)

    def _find(self, label: int) -> int:
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label


@dataclass(frozen=True)
class Channels:
    """A tensor whose dimension ``dim`` carries ``labels``, one per index."""

    dim: int
    labels: Labels


@dataclass(frozen=True)
class ParameterValue:
    """A parameter or buffer of the network, by its first qualified name."""

    name: str
    shape: tuple[int, ...]


Value = Channels | ParameterValue | None | Sequence["Value"]
"""What is known of a value in the graph: labelled channels, a parameter, nothing (no labels), or several."""
