"""What a network of a comparison is: how it came about, and what sets it apart from the plain one of its role.

Plain data: `secateur.sweeps` plans it, `secateur.report` reads it again from records, whose keys it knows.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import final

from secateur.errors import RecordError
from secateur.records import Record


class Role(StrEnum):
    """How a network came about; ``kind`` in records."""

    DENSE = "dense"
    PRUNED = "pruned"
    SPARSE = "sparse"  # single weights are zero
    SCRATCH = "scratch"  # the shape of a pruned network, trained from fresh weights
    SMALL = "small"  # thinner in every layer, trained from fresh weights

    @property
    def is_cut(self) -> bool:
        """Whether it is what is left of a trained network."""
        return self in (Role.PRUNED, Role.SPARSE)


class Match(StrEnum):
    """In what training from fresh weights is as long as dense training and recovery together."""

    EPOCHS = "epochs"
    MACS = "macs"


@final
@dataclass(frozen=True)
class Distilled:
    """A pruned network that recovers with the dense one's answers."""


@final
@dataclass(frozen=True)
class Sampled:
    """A pruned network whose criterion saw this many training frames."""

    samples: int


@final
@dataclass(frozen=True)
class Scratch:
    """A pruned network's shape, trained from fresh weights."""

    epochs: int
    matched: Match


@final
@dataclass(frozen=True)
class Weights:
    """A sparse network; see `secateur.recipes.sparsity.SparsityRecipe`. ``branch``: the only part that lost weights."""

    scope: str
    compression: float
    score: str
    branch: str | None = None


@final
@dataclass(frozen=True)
class Small:
    """A dense network with about one over ``compression`` of the parameters."""

    compression: float
    epochs: int


Variant = Distilled | Sampled | Scratch | Weights | Small

_KINDS: dict[str, type[Variant]] = {
    "distilled": Distilled,
    "samples": Sampled,
    "scratch": Scratch,
    "weights": Weights,
    "small": Small,
}


def variant_to_record(variant: Variant | None) -> Record | None:
    """The ``variant`` of a cell's record; None where nothing sets the network apart."""
    if variant is None:
        return None
    kind = next(name for name, each in _KINDS.items() if isinstance(variant, each))
    return {"kind": kind, **{key: value for key, value in asdict(variant).items() if value is not None}}


def variant_from_record(record: Record | None) -> Variant | None:
    """The same read again.

    Raises:
        RecordError: no such variant is known, or it lacks a key or has one too many.
    """
    if record is None:
        return None
    values = {key: value for key, value in record.items() if key != "kind"}
    try:
        variant = _KINDS[record["kind"]](**values)
        return Scratch(variant.epochs, Match(variant.matched)) if isinstance(variant, Scratch) else variant
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{record} is no variant of a network; known kinds: {', '.join(_KINDS)}. The record may be of a newer "
            f"secateur."
        ) from error
