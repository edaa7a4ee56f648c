"""The cells of a sweep over compression ratios, by what was done alike, and what they reached."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from secateur.records import Record
from secateur.report.findings import SCOPES
from secateur.report.quantities import AJI, CORRELATION, INSTANCE_DICE, MSE, PQ, SEMANTIC_DICE, Quantity
from secateur.report.sweeps.pooling import (
    Difference,
    Phase,
    Pooled,
    Values,
    check_lengths,
    difference,
    pool,
    read_values,
)
from secateur.roles import Role, Small, Weights, variant_from_record

OUTPUTS = (SEMANTIC_DICE, CORRELATION, MSE, AJI, PQ, INSTANCE_DICE)  # of the branches, then of both together


@dataclass(frozen=True)
class Line:
    """What is done alike at every ratio: a row of a table, a line of a figure.

    Attributes:
        key: ``dense``, ``control``, ``layer``, ``network``, ``random``, ``small``, ``filters``, or a branch that alone
            loses weights.
        label: in words.
    """

    key: str
    label: str


DENSE = Line("dense", "dense")
CONTROL = Line("control", "nothing removed, trained on")
LAYER = Line("layer", SCOPES["layer"])
NETWORK = Line("network", SCOPES["network"])
RANDOM = Line("random", "random masks")
SMALL = Line("small", "small dense network")
FILTERS = Line("filters", "whole filters")
LINES = (DENSE, CONTROL, LAYER, NETWORK, RANDOM, SMALL, FILTERS)
PRUNED = (LAYER, NETWORK)

Place = tuple[Line, float]  # with the ratio; of whole filters, one over the share to keep; 1 where nothing is removed


@dataclass(frozen=True)
class RatioSweep:
    """A ``sweep.json`` record over ratios with its cells by place."""

    record: Record
    places: Mapping[Place, tuple[Record, ...]]

    @property
    def main_phase(self) -> Phase:
        """After recovery, unless the sweep is without."""
        return Phase.AFTER if self.record["recipe"]["sparsity"]["recovery"] else Phase.BEFORE

    def lines(self, phase: Phase) -> list[Line]:
        """All lines with a cell in ``phase``, in the order of the tables."""
        found = dict.fromkeys(line for line, ratio in self.places if self.cells((line, ratio), phase))
        return sorted(found, key=lambda line: LINES.index(line) if line in LINES else len(LINES))

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

    def of_first_seed(self, place: Place) -> Record | None:
        """The cell that came from the first dense training; None where it is not done."""
        first = self.record["recipe"]["ratios"]["seeds"][0]
        cells = self.places.get(place, ())
        return next((cell for cell in cells if cell["seed"] == first and cell["status"] == "done"), None)

    def position(self, place: Place) -> float:
        """Where a place stands among the ratios: whole filters by the parameters that they left."""
        line, ratio = place
        params = [cell["params"] for cell in self.places[place] if cell["status"] == "done"]
        dense = [cell["params"] for cell in self.places.get((DENSE, 1.0), ()) if cell["status"] == "done"]
        return float(dense[0] / np.mean(params)) if line == FILTERS and params and dense else ratio

    def values(self, place: Place, label: str, phase: Phase, quantity: Quantity) -> Values:
        """One metric per case on a set, of every seed that is done."""
        return read_values(self.cells(place, phase), label, phase, quantity)

    def pooled(self, place: Place, label: str, phase: Phase, quantity: Quantity) -> Pooled | None:
        """What a place reached; None where no cell of it is done."""
        return pool(self.values(place, label, phase, quantity))

    def reference(self, phase: Phase) -> Place:
        """What losses are counted from: the same training without a cut, where every dense network has that."""
        if phase is Phase.BEFORE:
            return DENSE, 1.0
        control, dense = (
            {cell["seed"] for cell in self.cells((line, 1.0), phase) if cell["status"] == "done"}
            for line in (CONTROL, DENSE)
        )
        return (CONTROL if dense and dense == control else DENSE, 1.0)

    def difference(
        self, first: Place, second: Place, *, label: str, phase: Phase, quantity: Quantity
    ) -> Difference | None:
        """``first`` minus ``second``; see `secateur.report.sweeps.pooling.difference`."""
        ours, theirs = (self.values(place, label, phase, quantity) for place in (first, second))
        return difference(ours, theirs, quantity)

    def _belongs(self, cell: Record, phase: Phase) -> bool:
        role = Role(cell["kind"])
        if role is Role.DENSE:
            return True
        if role is Role.SMALL:
            return phase is self.main_phase
        if phase is Phase.AFTER:
            return bool(cell["recovered"])
        return bool(self.record["recipe"]["ratios"]["before_recovery"] or not cell["recovered"])


def read_ratios(record: Record) -> RatioSweep:
    """Group the cells of a ``sweep.json`` record over ratios, finished or not.

    Raises:
        RecordError: an evaluation lacks a metric, or has not one value for each case of its set.
    """
    check_lengths(record, OUTPUTS)
    places: dict[Place, list[Record]] = {}
    for cell in record["cells"]:
        places.setdefault(_place(cell), []).append(cell)
    return RatioSweep(record, {place: tuple(cells) for place, cells in places.items()})


def _place(cell: Record) -> Place:
    if cell["kind"] == Role.PRUNED:
        return FILTERS, 1 / cell["keep_ratio"]
    match variant_from_record(cell["variant"]):
        case Small(ratio):
            return SMALL, ratio
        case Weights(compression=ratio, branch=str(branch)):
            return Line(branch, f"{branch} branch alone"), ratio
        case Weights(compression=ratio, score="random"):
            return RANDOM, ratio
        case Weights(compression=1):
            return CONTROL, 1.0
        case Weights(scope, ratio):
            return (LAYER if scope == LAYER.key else NETWORK), ratio
    return DENSE, 1.0
