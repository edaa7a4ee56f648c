"""The cells of a sweep, grouped by what was done alike, and their Dice pooled over dense trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secateur.errors import RecordError
from secateur.records import Record
from secateur.report import rounding
from secateur.report.quantities import DICE
from secateur.report.sweeps.pooling import (
    Difference,
    Phase,
    Pooled,
    check_lengths,
    difference,
    evaluation,
    pool,
    read_values,
)
from secateur.roles import Distilled, Match, Role, Sampled, Scratch, variant_from_record

_MATCHED = {Match.EPOCHS: "equal epochs", Match.MACS: "equal training MACs"}


@dataclass(frozen=True)
class Arm:
    """What is done alike at every budget: one row of a table, one line of a figure.

    Attributes:
        role: dense, pruned or from scratch.
        criterion: what chose the channels; of ``scratch``, whose shape is trained.
        variant: in what it differs from the plain arm of its criterion, in words.
        samples: scoring samples, where they are the variant.
    """

    role: Role
    criterion: str | None = None
    variant: str | None = None
    samples: int | None = None

    @property
    def label(self) -> str:
        """In words, for a row or a legend."""
        if self.criterion is None:
            return self.role.value
        words = [self.criterion if self.role is Role.PRUNED else f"from scratch in {self.criterion}'s shape"]
        return ", ".join([*words, *([self.variant] if self.variant else [])])


DENSE = Arm(Role.DENSE)
Place = tuple[Arm, float | None]  # arm and share to keep, None for the dense network
_Key = tuple[str, Phase, Arm, float | None]  # label of a set before a place


@dataclass(frozen=True)
class Reached:
    """One place on one set, over the seeds that are done; None is what is undefined.

    Attributes:
        dice: of the cases.
        lost: polyps lost among the ``seen`` by the dense network of the same seed, summed over seeds.
        false_frames: frames with a false polyp of ``frames``, summed over seeds.
    """

    dice: Pooled
    lost: int | None
    seen: int | None
    false_frames: int
    frames: int


@dataclass(frozen=True)
class Sweep:
    """A ``sweep.json`` record with its cells by place, in the order of the tables, and what they reached."""

    record: Record
    places: Mapping[Place, tuple[Record, ...]]
    reached: Mapping[_Key, Reached]

    @property
    def leading(self) -> Arm:
        """The plain arm of the first criterion of the recipe."""
        return Arm(Role.PRUNED, self.record["recipe"]["sweep"]["criteria"][0])

    def cells(self, arm: Arm, keep_ratio: float | None, phase: Phase) -> tuple[Record, ...]:
        """The cells of a place that are, or are to be, measured in ``phase``."""
        return _of_phase(self.places.get((arm, None if arm == DENSE else keep_ratio), ()), phase)

    def at(self, label: str, phase: Phase, arm: Arm, keep_ratio: float | None) -> Reached | None:
        """What a place reached; None where no cell of it is done."""
        return self.reached.get((label, phase, arm, None if arm == DENSE else keep_ratio))

    def arms(self, phase: Phase) -> list[Arm]:
        """All arms of ``phase``, the dense one first, the leading one next."""
        return list(dict.fromkeys(arm for arm, ratio in self.places if self.cells(arm, ratio, phase)))

    def budgets(self, phase: Phase) -> list[float]:
        """Shares to keep, the mildest cut first."""
        ratios = {ratio for arm, ratio in self.places if self.cells(arm, ratio, phase)}
        return sorted((ratio for ratio in ratios if ratio is not None), reverse=True)

    def macs_share(self, arm: Arm, keep_ratio: float | None) -> float | None:
        """Mean share of the dense network's MACs that the finished cells of a place reached."""
        dense = [cell["macs"] for cell in self.places.get((DENSE, None), ()) if cell["status"] == "done"]
        found = [cell["macs"] for cell in self.places.get((arm, keep_ratio), ()) if cell["status"] == "done"]
        return float(np.mean(found) / dense[0]) if dense and found else None

    def difference(self, first: Place, second: Place, *, label: str, phase: Phase) -> Difference | None:
        """Dice of ``first`` minus ``second``; see `secateur.report.sweeps.pooling.difference`."""
        ours, theirs = (read_values(self.cells(*place, phase), label, phase, DICE) for place in (first, second))
        return difference(ours, theirs, DICE)


def read_sweep(record: Record) -> Sweep:
    """Group the cells of a ``sweep.json`` record, finished or not.

    Raises:
        RecordError: it is another kind of record, or an evaluation has not one Dice for each case of its set.
    """
    missing = {"cells", "sets", "recipe"} - record.keys()
    if missing:
        raise RecordError(f"the record has no {', '.join(sorted(missing))}; give the sweep.json of `secateur sweep`.")
    check_lengths(record, (DICE,))
    criteria = record["recipe"]["sweep"]["criteria"]
    grouped: dict[Place, list[Record]] = {}
    for cell in record["cells"]:
        grouped.setdefault((_arm(cell), cell["keep_ratio"]), []).append(cell)
    places = {
        place: tuple(sorted(grouped[place], key=lambda cell: int(cell["seed"])))
        for place in sorted(grouped, key=lambda place: _rank(place[0], criteria))
    }
    reached = {}
    for label in record["sets"]:
        for phase in Phase:
            for (arm, ratio), cells in places.items():
                found = _pool(_of_phase(cells, phase), label, phase)
                if found:
                    reached[label, phase, arm, ratio] = found
    return Sweep(record, places, reached)


def _arm(cell: Record) -> Arm:
    plain = Arm(Role(cell["kind"]), cell["criterion"])
    match variant_from_record(cell["variant"]):
        case Sampled(count):
            return replace(plain, variant=rounding.plural(count, "scoring sample"), samples=count)
        case Scratch(matched=matched):
            return replace(plain, variant=_MATCHED[matched])
        case Distilled():
            return replace(plain, variant="distilled")
    return plain


def _rank(arm: Arm, criteria: Sequence[str]) -> tuple[int, int, str]:
    """Order of the rows: dense, then criterion by criterion, plain before variants."""
    place = criteria.index(arm.criterion) if arm.criterion in criteria else len(criteria)
    return (-1 if arm == DENSE else place, arm.samples or 0, arm.variant or "")


def _of_phase(cells: Sequence[Record], phase: Phase) -> tuple[Record, ...]:
    """One cell per seed: where a cut was made both with recovery and without, the first has both measurements."""
    found = {cell["seed"]: cell for recovered in (False, True) for cell in cells if cell["recovered"] is recovered}
    return tuple(found[seed] for seed in sorted(found) if _belongs(found[seed], phase))


def _belongs(cell: Record, phase: Phase) -> bool:
    role = Role(cell["kind"])
    if role is Role.DENSE:
        return True
    if phase is Phase.AFTER:
        return role is Role.SCRATCH or bool(cell["recovered"])
    # distillation begins after the cut, which is that of the plain arm
    return role is Role.PRUNED and not isinstance(variant_from_record(cell["variant"]), Distilled)


def _pool(cells: Sequence[Record], label: str, phase: Phase) -> Reached | None:
    dice = pool(read_values(cells, label, phase, DICE))
    if dice is None:
        return None
    found = [each for cell in cells if (each := evaluation(cell, label, phase))]
    against_dense = all(each["polyps"]["lost"] is not None for each in found)
    return Reached(
        dice=dice,
        lost=sum(each["polyps"]["lost"] for each in found) if against_dense else None,
        seen=sum(each["polyps"]["seen_by_dense"] for each in found) if against_dense else None,
        false_frames=sum(each["false_polyp_frames"]["count"] for each in found),
        frames=sum(each["false_polyp_frames"]["of"] for each in found),
    )
