"""Among which weights the places are shared out: inside each layer, over the whole network, or in small runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import final

from torch import Tensor

from secateur.errors import BudgetError
from secateur.prune.weights.prunable import PrunableWeight
from secateur.prune.weights.selection import largest, largest_in_runs

WeightKeys = Callable[[PrunableWeight], Tensor]  # integer keys of the weight's shape, see `selection`


class Scope(ABC):
    """How many weights stay, and which compete. Compression is weights before / weights left, 1 or more."""

    compression: float

    @abstractmethod
    def choose(self, weights: Sequence[PrunableWeight], keys: WeightKeys) -> list[Tensor]:
        """Mark what stays, the largest keys: per weight bool, of its shape.

        Raises:
            BudgetError: nothing would be left, or less is left already than is to stay.
        """

    def too_small(self, weights: Sequence[PrunableWeight]) -> tuple[str, ...]:
        """Names of the weights that cannot be compressed as asked because one element has to stay."""
        return ()


@final
@dataclass(frozen=True)
class LayerWise(Scope):
    """Each layer loses its floor(size (1 - 1/compression)) smallest weights, so that none is emptied."""

    compression: float

    def __post_init__(self) -> None:
        _check(self.compression)

    def choose(self, weights: Sequence[PrunableWeight], keys: WeightKeys) -> list[Tensor]:
        """Mark the ceil(size / compression) largest of each."""
        _kept(sum(weight.size for weight in weights), self.compression)
        return [largest([partial(keys, w)], _rounded(w.size, self.compression))[0] for w in weights]

    def too_small(self, weights: Sequence[PrunableWeight]) -> tuple[str, ...]:
        """Those with fewer elements than the compression."""
        return tuple(weight.name for weight in weights if weight.size < self.compression)

    def __str__(self) -> str:
        return f"layer-wise, compression {self.compression:g}"


@final
@dataclass(frozen=True)
class NetworkWise(Scope):
    """The floor(N (1 - 1/compression)) smallest of all N weights leave, wherever they are: layers may die."""

    compression: float

    def __post_init__(self) -> None:
        _check(self.compression)

    def choose(self, weights: Sequence[PrunableWeight], keys: WeightKeys) -> list[Tensor]:
        """Mark the ceil(N / compression) largest of all."""
        count = _kept(sum(weight.size for weight in weights), self.compression)
        return largest([partial(keys, weight) for weight in weights], count)

    def __str__(self) -> str:
        return f"network-wide, compression {self.compression:g}"


@final
@dataclass(frozen=True)
class Pattern(Scope):
    """At most ``n`` weights stay of every ``m`` neighbours along the input channels, e.g. 2:4 on NVIDIA's sparse units.

    At each output channel and kernel position the input channels are cut into runs of ``m``, inside the layer's
    groups; a shorter run at the end keeps ``n`` or all that it has, as if zeros filled it. A depthwise convolution
    sums over one channel only and stays whole. (Mishra et al. 2021, arXiv 2104.08378, for n, m = 2, 4.)
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise BudgetError(f"a pattern keeps 1 to m of every m weights; got {self.n}:{self.m}, try 2:4.")

    @property
    def compression(self) -> float:  # type: ignore[override]
        """What whole runs reach."""
        return self.m / self.n

    def choose(self, weights: Sequence[PrunableWeight], keys: WeightKeys) -> list[Tensor]:
        """Mark the ``n`` largest of each run."""
        return [self._choose(weight, keys(weight)) for weight in weights]

    def _choose(self, weight: PrunableWeight, keys: Tensor) -> Tensor:
        dim, shape = weight.input_dim, weight.shape
        grouped = keys.reshape(*shape[:dim], weight.input_groups, -1, *shape[dim + 1 :])
        kept = largest_in_runs(grouped.movedim(dim + 1, -1), self.n, self.m)
        return kept.movedim(-1, dim + 1).reshape(shape)

    def __str__(self) -> str:
        return f"{self.n}:{self.m} along the input channels"


def _check(compression: float) -> None:
    if not 1 <= compression < float("inf"):
        raise BudgetError(
            f"the compression is {compression}; it is weights before / weights left, so give 1 or more, such as 16."
        )


def _kept(size: int, compression: float) -> int:
    if compression > size:
        raise BudgetError(f"compression {compression:g} leaves nothing of {size} weights; give at most {size}.")
    return _rounded(size, compression)


def _rounded(size: int, compression: float) -> int:
    """``size / compression``, rounded up, of the decimal number that was given and not of its nearest float."""
    return -(-size // Fraction(str(compression)))
