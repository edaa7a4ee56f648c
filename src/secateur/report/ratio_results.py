"""The cells of a sweep over compression ratios, by what was done alike, and their metrics pooled over trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.errors import RecordError
from secateur.metrics.aggregate import summarize, summarize_difference
from secateur.records import Record
from secateur.report.intervals import Interval
from secateur.report.quantities import AJI, CORRELATION, INSTANCE_DICE, MSE, PQ, SEMANTIC_DICE, Quantity
from secateur.report.sweep_cells import Phase

OUTPUTS = (SEMANTIC_DICE, CORRELATION, MSE, AJI, PQ, INSTANCE_DICE)  # of the branches, then of both together

Values = Mapping[int, NDArray[np.float64]]  # by seed, per case; NaN is undefined


@dataclass(frozen=True)
class Line:
    """What is done alike at every ratio: a row of a table, a line of a figure.

    Attributes:
        key: ``dense``, ``layer``, ``network``, ``random``, ``small`` or ``filters``.
        label: in words.
    """

    key: str
    label: str


DENSE = Line("dense", "dense")
LAYER = Line("layer", "layer-wise")
NETWORK = Line("network", "network-wide")
RANDOM = Line("random", "random masks")
SMALL = Line("small", "small dense network")
FILTERS = Line("filters", "whole filters")
LINES = (DENSE, LAYER, NETWORK, RANDOM, SMALL, FILTERS)
SCOPES = (LAYER, NETWORK)

Place = tuple[Line, float]  # with the ratio; of whole filters, one over the share to keep; 1 for the dense network


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
    undefined: int

    @property
    def verdict(self) -> str:
        """What the interval allows to say of the first place."""
        low, high = self.interval.low, self.interval.high
        if low <= 0 <= high:
            return "no difference shown"
        return "better" if (low > 0) != self.quantity.lower_is_better else "worse"


@dataclass(frozen=True)
class RatioSweep:
    """A ``sweep.json`` record over ratios with its cells by place."""

    record: Record
    places: Mapping[Place, tuple[Record, ...]]

    @property
    def main_phase(self) -> Phase:
        """After recovery, unless the whole sweep is without."""
        scopes = [place for place in self.places if place[0] in SCOPES]
        return Phase.AFTER if any(self.cells(place, Phase.AFTER) for place in scopes) else Phase.BEFORE

    def lines(self, phase: Phase) -> list[Line]:
        """All lines with a cell in ``phase``, in the order of the tables."""
        found = {place[0] for place in self.places if self.cells(place, phase)}
        return [line for line in LINES if line in found]

    def ratios(self, line: Line) -> list[float]:
        """The ratios of a line, smallest first."""
        return sorted(ratio for each, ratio in self.places if each == line)

    def cells(self, place: Place, phase: Phase) -> tuple[Record, ...]:
        """The cells of a place that are, or are to be, measured in ``phase``, one per seed."""
        found: dict[int, Record] = {}
        for cell in self.places.get(place, ()):
            if self._belongs(cell, phase):
                known = found.get(cell["seed"])
                if known is None or (known["status"] != "done" and cell["status"] == "done"):
                    found[cell["seed"]] = cell
        return tuple(found[seed] for seed in sorted(found))

    def _belongs(self, cell: Record, phase: Phase) -> bool:
        if cell["kind"] == "dense":
            return True
        if phase is Phase.AFTER:
            return bool(cell["kind"] == "small" or cell["recovered"])
        asked = self.record["recipe"]["ratios"]["before_recovery"] or not cell["recovered"]
        return bool(cell["kind"] in ("sparse", "pruned") and asked)

    def position(self, place: Place) -> float:
        """Where a place stands among the ratios: whole filters by the parameters that they left."""
        line, ratio = place
        params = [cell["params"] for cell in self.places[place] if cell["status"] == "done"]
        dense = [cell["params"] for cell in self.places.get((DENSE, 1.0), ()) if cell["status"] == "done"]
        return float(dense[0] / np.mean(params)) if line == FILTERS and params and dense else ratio

    def values(self, place: Place, label: str, phase: Phase, quantity: Quantity) -> Values:
        """One metric per case on a set, of every seed that is done."""
        found = {int(cell["seed"]): _evaluation(cell, label, phase) for cell in self.cells(place, phase)}
        return {seed: np.array(each[quantity.key], dtype=np.float64) for seed, each in found.items() if each}

    def pooled(self, place: Place, label: str, phase: Phase, quantity: Quantity) -> Pooled | None:
        """What a place reached; None where no cell of it is done."""
        values = self.values(place, label, phase, quantity)
        if not values:
            return None
        summary = summarize(np.mean(list(values.values()), axis=0))
        return Pooled(
            mean=summary.mean if summary.n else None,
            interval=Interval.of(summary),
            by_seed=_means(values),
            undefined=summary.undefined,
        )

    def difference(
        self, first: Place, second: Place, *, label: str, phase: Phase, quantity: Quantity
    ) -> Difference | None:
        """``first`` minus ``second``; None without a common seed or with fewer than two common cases.

        Only seeds that both have are taken, since networks of one seed come from one dense training. A case is
        averaged over them first; then the paired bootstrap draws cases.
        """
        ours, theirs = (self.values(place, label, phase, quantity) for place in (first, second))
        seeds = [seed for seed in ours if seed in theirs]
        if not seeds:
            return None
        one, other = (np.mean([side[seed] for seed in seeds], axis=0).tolist() for side in (ours, theirs))
        summary = summarize_difference(other, one)
        interval = Interval.of(summary)
        by_seed = _means({seed: ours[seed] - theirs[seed] for seed in seeds})
        return Difference(quantity, interval, by_seed, summary.undefined) if interval else None


def read_ratios(record: Record) -> RatioSweep:
    """Group the cells of a ``sweep.json`` record over ratios, finished or not.

    Raises:
        RecordError: an evaluation lacks a metric, or has not one value for each case of its set.
    """
    _check(record)
    scopes = [line for line in SCOPES if line.key in record["recipe"]["ratios"]["scopes"]]
    places: dict[Place, list[Record]] = {}
    for cell in record["cells"]:
        for place in _places(cell, scopes):
            places.setdefault(place, []).append(cell)
    return RatioSweep(record, {place: tuple(cells) for place, cells in places.items()})


def _places(cell: Record, scopes: Sequence[Line]) -> list[Place]:
    """Where a cell belongs; where no weight leaves, it stands for every scope."""
    variant: Record = cell["variant"] or {}
    if cell["kind"] == "dense":
        return [(DENSE, 1.0)]
    if cell["kind"] == "pruned":
        return [(FILTERS, 1 / cell["keep_ratio"])]
    ratio = float(variant["compression"])
    if cell["kind"] == "small":
        return [(SMALL, ratio)]
    if variant["score"] == "random":
        return [(RANDOM, ratio)]
    return [(line, ratio) for line in scopes if ratio == 1 or line.key == variant["scope"]]


def _evaluation(cell: Record, label: str, phase: Phase) -> Record | None:
    """What a cell reached on a set; None where it is not done."""
    if cell["status"] != "done":
        return None
    cut = cell["kind"] in ("sparse", "pruned") and phase is Phase.BEFORE
    evaluations: Record = (cell["before_recovery"] if cut else cell["evaluations"]) or {}
    found: Record | None = evaluations.get(label)
    return found


def _means(values: Values) -> dict[int, float]:
    defined = {seed: each[~np.isnan(each)] for seed, each in values.items()}
    return {seed: float(each.mean()) for seed, each in defined.items() if each.size}


def _check(record: Record) -> None:
    for cell in record["cells"]:
        for evaluations in (cell.get("evaluations"), cell.get("before_recovery")):
            for label, evaluation in (evaluations or {}).items():
                wanted = len(record["sets"][label]["ids"])
                for quantity in OUTPUTS:
                    found = len(evaluation.get(quantity.key, ()))
                    if found != wanted:
                        raise RecordError(
                            f"cell '{cell['name']}' has {found} values of '{quantity.key}' for the {wanted} cases of "
                            f"'{label}'; run `secateur sweep` again for that cell."
                        )
