"""What the cells of a sweep reached, pooled over dense trainings, and how two of them differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from secateur.errors import RecordError
from secateur.metrics.aggregate import summarize, summarize_difference
from secateur.records import Record
from secateur.report.intervals import Interval
from secateur.report.quantities import Quantity
from secateur.roles import Role

Values = Mapping[int, NDArray[np.float64]]  # by seed, one metric per case ``(cases,)``; NaN is undefined


class Phase(Enum):
    """When a network was measured; the dense one is the same in both."""

    AFTER = "after recovery"
    BEFORE = "before recovery"


@dataclass(frozen=True)
class Pooled:
    """One metric of one place on one set, over the seeds that are done.

    Attributes:
        mean: over cases, each averaged over seeds first; None where no case is defined.
        interval: the same with its bootstrap interval over cases; None with fewer than two cases.
        by_seed: mean of each seed that has one.
        undefined: cases without a value in some seed, which are left out.
    """

    mean: float | None
    interval: Interval | None
    by_seed: Mapping[int, float]
    undefined: int


@dataclass(frozen=True)
class Difference:
    """Mean of one place minus another's, paired by case, over the seeds that both have.

    Attributes:
        quantity: what was measured.
        interval: of the difference.
        by_seed: of each seed.
        undefined: cases without a value on either side, which are left out.
    """

    quantity: Quantity
    interval: Interval
    by_seed: Mapping[int, float]
    undefined: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval over cases does."""
        return not self.interval.low <= 0 <= self.interval.high

    @property
    def verdict(self) -> str:
        """What the interval and the seeds allow to say of the first place: a key of `VERDICTS`."""
        if not self.excludes_zero:
            return "no difference shown"
        if len({value > 0 for value in self.by_seed.values()}) > 1:
            return "seeds disagree"
        return "better" if (self.interval.low > 0) != self.quantity.lower_is_better else "worse"


VERDICTS = {"better": "pass", "worse": "fail", "seeds disagree": "muted", "no difference shown": "muted"}  # tones


def evaluation(cell: Record, label: str, phase: Phase) -> Record | None:
    """What a cell reached on a set; None where it is not done."""
    if cell["status"] != "done":
        return None
    cut = Role(cell["kind"]).is_cut and phase is Phase.BEFORE
    evaluations: Record = (cell["before_recovery"] if cut else cell["evaluations"]) or {}
    found: Record | None = evaluations.get(label)
    return found


def read_values(cells: Sequence[Record], label: str, phase: Phase, quantity: Quantity) -> Values:
    """One metric per case on a set, of every seed that is done."""
    found = {int(cell["seed"]): evaluation(cell, label, phase) for cell in cells}
    return {seed: np.array(each[quantity.key], dtype=np.float64) for seed, each in found.items() if each}


def pool(values: Values) -> Pooled | None:
    """Means over cases and seeds; None without a seed."""
    if not values:
        return None
    summary = summarize(np.mean(list(values.values()), axis=0))
    mean = summary.mean if summary.n else None
    return Pooled(mean, Interval.of(summary), _means(values), summary.undefined)


def difference(ours: Values, theirs: Values, quantity: Quantity) -> Difference | None:
    """``ours`` minus ``theirs``; None without a common seed or with fewer than two common cases.

    Only seeds that both have are taken, since networks of one seed come from one dense training. A case is averaged
    over them first; then the paired bootstrap draws cases.
    """
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    one, other = (np.mean([side[seed] for seed in seeds], axis=0).tolist() for side in (ours, theirs))
    summary = summarize_difference(other, one)
    interval = Interval.of(summary)
    by_seed = _means({seed: ours[seed] - theirs[seed] for seed in seeds})
    return Difference(quantity, interval, by_seed, summary.undefined) if interval else None


def check_lengths(record: Record, quantities: Sequence[Quantity]) -> None:
    """Hold every evaluation against the cases of its set.

    Raises:
        RecordError: an evaluation is of no set of the record, lacks a metric, or has not one value for each case.
    """
    for cell in record["cells"]:
        for evaluations in (cell.get("evaluations"), cell.get("before_recovery")):
            for label, found in (evaluations or {}).items():
                if label not in record["sets"]:
                    raise RecordError(
                        f"cell '{cell['name']}' was measured on '{label}', which is not among the sets of the record "
                        f"({', '.join(record['sets'])}); run `secateur sweep` again with --resume."
                    )
                wanted = len(record["sets"][label]["ids"])
                for quantity in quantities:
                    count = len(found.get(quantity.key, ()))
                    if count != wanted:
                        raise RecordError(
                            f"cell '{cell['name']}' has {count} values of '{quantity.key}' for the {wanted} cases of "
                            f"'{label}'; run `secateur sweep` again for that cell."
                        )


def _means(values: Values) -> dict[int, float]:
    defined = {seed: each[~np.isnan(each)] for seed, each in values.items()}
    return {seed: float(each.mean()) for seed, each in defined.items() if each.size}
